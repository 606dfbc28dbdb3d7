package attestationtest

import (
	"crypto/sha512"
	"errors"
	"slices"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/corridor-enclave/corridor/attestation/nsm"
)

// The messages are those drawn in package nsm, decoded here by another hand, so
// that a mistake in one of the two shows.

// decodeRequest returns the name of a request and its fields, which are nil for
// a request that has none.
func decodeRequest(request []byte) (name string, fields cbor.RawMessage, err error) {
	if err := cbor.Unmarshal(request, &name); err == nil {
		return name, nil, nil
	}
	var entries map[string]cbor.RawMessage
	if err := cbor.Unmarshal(request, &entries); err != nil {
		return "", nil, err
	}
	if len(entries) != 1 {
		return "", nil, errors.New("not one entry")
	}
	for name, fields = range entries {
	}
	return name, fields, nil
}

// handleLocked returns the answer to a request, or the code to refuse it with.
func (m *Module) handleLocked(name string, fields cbor.RawMessage) (any, error) {
	switch name {
	case "DescribeNSM", "GetRandom":
		if fields != nil {
			return nil, nsm.InvalidOperation
		}
		if name == "GetRandom" {
			return map[string]any{name: map[string]any{"random": random()}}, nil
		}
		return map[string]any{name: m.describeLocked()}, nil
	case "DescribePCR", "ExtendPCR", "LockPCR":
		return m.handlePCRLocked(name, fields)
	case "LockPCRs":
		return m.lockPCRsLocked(name, fields)
	case "Attestation":
		return m.attestLocked(name, fields)
	}
	return nil, nsm.InvalidOperation
}

func (m *Module) describeLocked() map[string]any {
	locked := []uint16{}
	for i, r := range m.pcrs {
		if r.locked {
			locked = append(locked, uint16(i))
		}
	}
	return map[string]any{
		"version_major": 1, "version_minor": 0, "version_patch": 0,
		"module_id": m.id, "max_pcrs": nsm.PCRs, "locked_pcrs": locked, "digest": "SHA384",
	}
}

func (m *Module) handlePCRLocked(name string, fields cbor.RawMessage) (any, error) {
	var f struct {
		Index *uint16 `cbor:"index"`
		Data  []byte  `cbor:"data"`
	}
	if err := decodeFields(fields, &f); err != nil || f.Index == nil {
		return nil, nsm.InvalidOperation
	}
	if *f.Index >= nsm.PCRs {
		return nil, nsm.InvalidIndex
	}
	r := &m.pcrs[*f.Index]
	if name == "DescribePCR" {
		return map[string]any{name: map[string]any{"lock": r.locked, "data": r.value}}, nil
	}
	if r.locked {
		return nil, nsm.ReadOnlyIndex
	}
	if name == "LockPCR" {
		r.locked = true
		return name, nil
	}
	if f.Data == nil {
		return nil, nsm.InvalidOperation
	}
	sum := sha512.Sum384(append(slices.Clone(r.value), f.Data...))
	r.value = sum[:]
	return map[string]any{name: map[string]any{"data": r.value}}, nil
}

func (m *Module) lockPCRsLocked(name string, fields cbor.RawMessage) (any, error) {
	var f struct {
		Range *uint16 `cbor:"range"`
	}
	if err := decodeFields(fields, &f); err != nil || f.Range == nil {
		return nil, nsm.InvalidOperation
	}
	if *f.Range > nsm.PCRs {
		return nil, nsm.InvalidIndex
	}
	for i := range *f.Range {
		m.pcrs[i].locked = true
	}
	return name, nil
}

func (m *Module) attestLocked(name string, fields cbor.RawMessage) (any, error) {
	var f struct {
		UserData  []byte `cbor:"user_data"`
		Nonce     []byte `cbor:"nonce"`
		PublicKey []byte `cbor:"public_key"`
	}
	if err := decodeFields(fields, &f); err != nil {
		return nil, nsm.InvalidOperation
	}
	if max(len(f.UserData), len(f.Nonce), len(f.PublicKey)) > maxField {
		return nil, nsm.InputTooLarge
	}
	if f.PublicKey != nil && len(f.PublicKey) == 0 {
		return nil, nsm.InvalidArgument
	}
	now := m.options.Now()
	if now.After(m.chain.Leaf().NotAfter.Add(-renewBefore)) || now.Before(m.chain.Leaf().NotBefore) {
		if err := m.renewLocked(now); err != nil {
			return nil, err
		}
	}
	pcrs := make(map[uint16][]byte)
	for i, r := range m.pcrs {
		if r.locked {
			pcrs[uint16(i)] = r.value
		}
	}
	document, err := m.chain.SignPayload(Payload{
		ModuleID: m.id, Digest: "SHA384", Timestamp: uint64(now.UnixMilli()), PCRs: pcrs,
		Certificate: m.chain.Leaf().Raw, CABundle: m.chain.Bundle(),
		PublicKey: f.PublicKey, UserData: f.UserData, Nonce: f.Nonce,
	})
	if err != nil {
		return nil, err
	}
	return map[string]any{name: map[string]any{"document": document}}, nil
}

// renewLocked issues a new leaf. It begins a few seconds early, as those of the
// real module do, so that a verifier's clock may be a little behind.
func (m *Module) renewLocked(now time.Time) error {
	chain, err := NewChain(m.options.Seed, now.Add(-3*time.Second).Truncate(time.Second), nil)
	if err != nil {
		return err
	}
	m.chain = chain
	return nil
}

func decodeFields(fields cbor.RawMessage, into any) error {
	if fields == nil {
		return errors.New("no fields")
	}
	return cbor.Unmarshal(fields, into)
}
