// Package attestationtest is a security module without hardware: it answers the
// messages of the real one, with documents signed by an authority of its own
// that follows from a seed. It proves nothing to anybody, so only tests and the
// simulated enclave may import it. It verifies no documents; package attestation
// does.
package attestationtest

import (
	"context"
	"crypto/rand"
	"crypto/sha512"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/corridor-enclave/corridor/attestation/nsm"
)

const (
	pcrSize    = sha512.Size384
	bootLocked = 16  // registers 0 to 15 are locked before the enclave starts
	randomSize = 256 // bytes of one answer to GetRandom
	maxField   = 1024
	// renewBefore is how long before its end a leaf is replaced, so that no
	// document leaves with a certificate about to expire.
	renewBefore = 5 * time.Minute
)

// Options shape a Module. The zero value is a usable one.
type Options struct {
	// Seed determines the authority, the module's name and, unless PCRs says
	// otherwise, the measurements. Equal seeds give equal ones in every process.
	Seed string
	// PCRs sets registers, 48 bytes each; nil means values derived from the seed
	// for 0, 1, 2, 3, 4 and 8. What is not set is zero.
	PCRs map[int][]byte
	// Debug sets registers 0 to 2 to zero, as the real module does in debug mode.
	Debug bool
	// Latency is how long every answer takes; 0 means none.
	Latency time.Duration
	// Now is the module's clock; nil means time.Now.
	Now func() time.Time
	// Fail is asked before each request, by its name (such as "Attestation"),
	// whether it fails. An nsm.ErrorCode becomes the module's refusal, any other
	// error a device that gives no answer. Nil means that none fails. It may be
	// called from several goroutines.
	Fail func(request string) error
}

type register struct {
	value  []byte
	locked bool
}

// A Module is a simulated security module. It implements nsm.Module and is safe
// for concurrent use.
type Module struct {
	options Options
	id      string
	root    []byte // DER

	mu     sync.Mutex
	pcrs   [nsm.PCRs]register
	chain  *Chain // its leaf is replaced in time
	closed bool
}

var _ nsm.Module = (*Module)(nil)

// NewModule returns a module, or an error where a PCR has another index than 0
// to 31 or another length than 48 bytes.
func NewModule(o Options) (*Module, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.PCRs == nil {
		pcrs, err := defaultPCRs(o.Seed)
		if err != nil {
			return nil, err
		}
		o.PCRs = pcrs
	}
	m := &Module{options: o}
	if err := m.boot(); err != nil {
		return nil, err
	}
	id, err := derive(o.Seed, "module id", 16)
	if err != nil {
		return nil, err
	}
	m.id = fmt.Sprintf("i-0%x-enc%x", id[:8], id[8:])
	if err := m.renewLocked(o.Now()); err != nil {
		return nil, err
	}
	m.root = m.chain.Root().Raw
	return m, nil
}

func defaultPCRs(seed string) (map[int][]byte, error) {
	pcrs := make(map[int][]byte)
	for _, i := range []int{0, 1, 2, 3, 4, 8} {
		value, err := derive(seed, fmt.Sprintf("PCR%d", i), pcrSize)
		if err != nil {
			return nil, err
		}
		pcrs[i] = value
	}
	return pcrs, nil
}

// boot measures the image, as far as anybody can who has none.
func (m *Module) boot() error {
	for i := range m.pcrs {
		m.pcrs[i] = register{value: make([]byte, pcrSize), locked: i < bootLocked}
	}
	for _, i := range slices.Sorted(maps.Keys(m.options.PCRs)) {
		value := m.options.PCRs[i]
		if i < 0 || i >= nsm.PCRs || len(value) != pcrSize {
			return fmt.Errorf("attestationtest: PCR%d with %d bytes: there are 0 to %d with %d bytes", i, len(value), nsm.PCRs-1, pcrSize)
		}
		if m.options.Debug && i <= 2 {
			continue
		}
		copy(m.pcrs[i].value, value)
	}
	return nil
}

// RootPEM returns the root certificate that a verifier has to trust.
func (m *Module) RootPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: m.root})
}

// PCRs returns a copy of the registers that documents carry: the locked ones.
func (m *Module) PCRs() map[int][]byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	pcrs := make(map[int][]byte)
	for i, r := range m.pcrs {
		if r.locked {
			pcrs[i] = slices.Clone(r.value)
		}
	}
	return pcrs
}

// PolicyTOML returns a policy file, as command attest takes it, that accepts
// exactly this module's PCR0 to PCR2.
func (m *Module) PolicyTOML() []byte {
	pcrs := m.PCRs()
	var b strings.Builder
	b.WriteString("# measurements of a simulated module, which prove nothing\n[[accept]]\nname = \"simulated\"\n[accept.pcrs]\n")
	for i := range 3 {
		fmt.Fprintf(&b, "%d = \"%x\"\n", i, pcrs[i])
	}
	return []byte(b.String())
}

// Close lets every further Send fail.
func (m *Module) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}

// Send answers one request after the module's latency, or gives up when ctx
// ends before.
func (m *Module) Send(ctx context.Context, request []byte) ([]byte, error) {
	if err := m.wait(ctx); err != nil {
		return nil, err
	}
	if len(request) > nsm.MaxRequest {
		return refuse(nsm.InputTooLarge)
	}
	name, fields, err := decodeRequest(request)
	if err != nil {
		return refuse(nsm.InvalidOperation)
	}
	if m.options.Fail != nil {
		if err := m.options.Fail(name); err != nil {
			return answerOrError(nil, err)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, fmt.Errorf("attestationtest: module: %w", fs.ErrClosed)
	}
	return answerOrError(m.handleLocked(name, fields))
}

func (m *Module) wait(ctx context.Context) error {
	if m.options.Latency <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(m.options.Latency)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// answerOrError turns a refusal into an answer.
func answerOrError(answer any, err error) ([]byte, error) {
	var code nsm.ErrorCode
	if errors.As(err, &code) {
		return refuse(code)
	}
	if err != nil {
		return nil, err
	}
	return Encode(answer)
}

func refuse(code nsm.ErrorCode) ([]byte, error) {
	return Encode(map[string]string{"Error": string(code)})
}

func random() []byte {
	b := make([]byte, randomSize)
	rand.Read(b) // never fails: it ends the program rather than return
	return b
}
