package sidecar

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"

	"github.com/corridor-enclave/corridor/attestation"
	"github.com/corridor-enclave/corridor/attestation/nsm"
	"github.com/corridor-enclave/corridor/enclave/front"
)

// configPCR is the first register that is the enclave's own to extend.
const configPCR = 16

// errOtherConfiguration reports a register that is locked with something else in
// it. It stays so until the enclave is started anew.
var errOtherConfiguration = errors.New("PCR16 measures another configuration: whoever was here before has locked it")

// measure puts the published configuration into its register, before the app can,
// and locks it. From then on every document carries the register, and those in
// Corridor's form name the configuration's digest as well, so that a client can
// demand it. A sidecar that is started a second time finds its own work.
func (s *Sidecar) measure(ctx context.Context) error {
	published, err := front.Publish(s.published())
	if err != nil {
		return err
	}
	content := sha512.Sum384(published)
	_, err = s.session.ExtendPCR(ctx, configPCR, content[:])
	switch {
	case errors.Is(err, nsm.ReadOnlyIndex):
		// Somebody has locked it; the value says whether it was us.
	case err != nil:
		return fmt.Errorf("measuring the configuration: %w", err)
	default:
		if err := s.session.LockPCR(ctx, configPCR); err != nil {
			return fmt.Errorf("measuring the configuration: %w", err)
		}
	}
	register, err := s.session.DescribePCR(ctx, configPCR)
	if err != nil {
		return fmt.Errorf("measuring the configuration: %w", err)
	}
	if !register.Locked || !bytes.Equal(register.Value, attestation.Measure(published)) {
		return errOtherConfiguration
	}
	s.config = sha256.Sum256(published)
	return nil
}
