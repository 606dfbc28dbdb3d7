package eif

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

const (
	defaultMemory = 1 << 30 // bytes, as nitro-cli writes
	defaultCPUs   = 2
)

// Parts are what an image is made of.
type Parts struct {
	Kernel      []byte   // a bzImage, or an Image for ARM64
	CommandLine string   // of the kernel
	Ramdisks    [][]byte // at least one; the first counts to PCR1, the others to PCR2
	ARM64       bool     // else x86-64
	Name        string   // for people, in the metadata
	Version     string   // likewise
	Built       time.Time
}

// The metadata that version 4 of the format demands. Nobody measures it.
type metadata struct {
	Name    string            `json:"ImageName"`
	Version string            `json:"ImageVersion"`
	Build   buildMetadata     `json:"BuildMetadata"`
	Docker  map[string]string `json:"DockerInfo"`
	Custom  map[string]string `json:"CustomMetadata"`
}

type buildMetadata struct {
	Time            string `json:"BuildTime"`
	Tool            string `json:"BuildTool"`
	ToolVersion     string `json:"BuildToolVersion"`
	OperatingSystem string `json:"OperatingSystem"`
	KernelVersion   string `json:"KernelVersion"`
}

// New puts an image together, in the order that nitro-cli uses: kernel, command
// line, metadata, ramdisks. Equal parts make equal images.
func New(p Parts) (*Image, error) {
	if len(p.Kernel) == 0 || len(p.Ramdisks) == 0 {
		return nil, errors.New("eif: build: a kernel and a ramdisk are needed")
	}
	for _, c := range p.CommandLine {
		if c < ' ' || c > '~' {
			return nil, fmt.Errorf("eif: build: command line: %q is not printable ASCII", c)
		}
	}
	about, err := json.Marshal(metadata{
		Name: p.Name, Version: p.Version, Docker: map[string]string{}, Custom: map[string]string{},
		Build: buildMetadata{Time: p.Built.UTC().Format(time.RFC3339), Tool: "corridor attest", OperatingSystem: "Linux"},
	})
	if err != nil {
		return nil, fmt.Errorf("eif: build: metadata: %w", err)
	}
	m := &Image{ARM64: p.ARM64, Memory: defaultMemory, CPUs: defaultCPUs, Sections: []Section{
		{Kernel, p.Kernel}, {CommandLine, []byte(p.CommandLine)}, {Metadata, about},
	}}
	for _, ramdisk := range p.Ramdisks {
		m.Sections = append(m.Sections, Section{Ramdisk, ramdisk})
	}
	return m, m.check()
}
