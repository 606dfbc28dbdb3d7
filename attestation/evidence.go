package attestation

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// MaxEvidence is the size of encoded evidence in bytes: the largest document in
// base64, the longest path, and what goes around them.
const MaxEvidence = (MaxDocument+2)/3*4 + 2048

const (
	evidenceVersion = 1
	maxPath         = 16 // of a tree of MaxTree leaves
	// aroundDocument is room for the proof in bytes, with the longest path.
	aroundDocument = 1024
)

// Evidence is what an enclave answers a client with, as USER_DATA.md defines it.
type Evidence struct {
	Document []byte // not verified
	Proof    *Proof // nil where the client has given no nonce
}

// A Proof leads from a client's nonce to the tree that the document names.
type Proof struct {
	Index    uint32   // of the leaf
	Size     uint32   // of the tree, in leaves
	Path     []Digest // from the leaf's neighbour up
	Exporter []byte   // what the enclave has seen of the connection; nil if it was not asked
}

type wireEvidence struct {
	Version  int        `json:"version"`
	Document string     `json:"document"`
	Proof    *wireProof `json:"proof,omitempty"`
}

type wireProof struct {
	Index    uint32   `json:"index"`
	Size     uint32   `json:"size"`
	Path     []string `json:"path"`
	Exporter string   `json:"exporter,omitempty"`
}

// Encode returns the evidence as JSON, on one line. It writes what encoding/json
// would, which spends more on looking for what to escape in base64 than all else
// that an enclave does for a client.
func (e Evidence) Encode() []byte {
	b := make([]byte, 0, base64.StdEncoding.EncodedLen(len(e.Document))+aroundDocument)
	b = append(b, `{"version":`...)
	b = strconv.AppendInt(b, evidenceVersion, 10)
	b = append(b, `,"document":`...)
	b = appendText(b, e.Document)
	if e.Proof != nil {
		b = e.Proof.append(b)
	}
	return append(b, "}\n"...)
}

func (p *Proof) append(b []byte) []byte {
	b = append(b, `,"proof":{"index":`...)
	b = strconv.AppendUint(b, uint64(p.Index), 10)
	b = append(b, `,"size":`...)
	b = strconv.AppendUint(b, uint64(p.Size), 10)
	b = append(b, `,"path":[`...)
	for i, d := range p.Path {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendText(b, d[:])
	}
	b = append(b, ']')
	if len(p.Exporter) > 0 {
		b = append(b, `,"exporter":`...)
		b = appendText(b, p.Exporter)
	}
	return append(b, '}')
}

// appendText appends bytes as a string of JSON, in base64.
func appendText(b, raw []byte) []byte {
	b = append(b, '"')
	b = base64.StdEncoding.AppendEncode(b, raw)
	return append(b, '"')
}

// ParseEvidence decodes JSON from the network. It checks its form and its
// lengths, and verifies nothing. Errors match ErrNotGenuine.
func ParseEvidence(b []byte) (Evidence, error) {
	e, err := parseEvidence(b)
	if err != nil {
		return Evidence{}, refuse(ErrNotGenuine, StepDocument, "evidence: %v", err)
	}
	return e, nil
}

func parseEvidence(b []byte) (Evidence, error) {
	if len(b) > MaxEvidence {
		return Evidence{}, fmt.Errorf("longer than %d bytes", MaxEvidence)
	}
	var wire wireEvidence
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&wire); err != nil {
		return Evidence{}, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Evidence{}, errors.New("something follows the object")
	}
	if wire.Version != evidenceVersion {
		return Evidence{}, fmt.Errorf("version %d is not known", wire.Version)
	}
	document, err := base64.StdEncoding.Strict().DecodeString(wire.Document)
	if err != nil {
		return Evidence{}, fmt.Errorf("document: %w", err)
	}
	if wire.Proof == nil {
		return Evidence{Document: document}, nil
	}
	proof, err := wire.Proof.parse()
	if err != nil {
		return Evidence{}, fmt.Errorf("proof: %w", err)
	}
	return Evidence{Document: document, Proof: proof}, nil
}

func (w *wireProof) parse() (*Proof, error) {
	if len(w.Path) > maxPath {
		return nil, fmt.Errorf("path of %d steps, the limit is %d", len(w.Path), maxPath)
	}
	p := &Proof{Index: w.Index, Size: w.Size, Path: make([]Digest, len(w.Path))}
	for i, text := range w.Path {
		b, err := base64.StdEncoding.Strict().DecodeString(text)
		if err != nil || len(b) != len(p.Path[i]) {
			return nil, fmt.Errorf("path: step %d is no digest", i)
		}
		copy(p.Path[i][:], b)
	}
	if w.Exporter == "" {
		return p, nil
	}
	exporter, err := base64.StdEncoding.Strict().DecodeString(w.Exporter)
	if err != nil || len(exporter) != ExporterSize {
		return nil, errors.New("exporter is not one")
	}
	p.Exporter = exporter
	return p, nil
}
