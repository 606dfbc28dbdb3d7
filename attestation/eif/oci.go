package eif

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// An App is what a container image holds, as far as an enclave can use it.
type App struct {
	Root        Files
	Command     []string // entry point and arguments
	Environment []string // NAME=VALUE
}

// Documents of the OCI image format, as far as they are read
// (opencontainers/image-spec: image-layout.md, manifest.md, config.md).
type descriptor struct {
	MediaType string `json:"mediaType"`
	Digest    string `json:"digest"`
	Size      int64  `json:"size"`
	Platform  *struct {
		Architecture string `json:"architecture"`
		OS           string `json:"os"`
	} `json:"platform"`
}

type manifest struct {
	Manifests []descriptor `json:"manifests"` // of an index
	Config    descriptor   `json:"config"`    // of an image
	Layers    []descriptor `json:"layers"`
}

type imageConfig struct {
	Config struct {
		Entrypoint []string
		Cmd        []string
		Env        []string
	} `json:"config"`
}

// maxZstdWindow is the memory that a layer in zstd may ask for, in bytes; RFC 8878,
// section 3.1.1.1.2, wants 8 MiB of every decoder, and zstd makes 128 at its most.
const maxZstdWindow = 128 << 20

// maxIndexes bounds how deep indexes may hold indexes.
const maxIndexes = 4

// IsOCI says whether a folder is an OCI image layout.
func IsOCI(layout fs.FS) bool {
	_, err := fs.Stat(layout, "oci-layout")
	return err == nil
}

// ReadOCI reads the image in a layout for Linux on the given architecture. Every
// blob is held against its digest. Layers are tar archives, in gzip, in zstd or as
// they are. Errors match ErrMalformed where the content is at fault.
func ReadOCI(layout fs.FS, arm64 bool) (*App, error) {
	index, err := fs.ReadFile(layout, "index.json")
	if err != nil {
		return nil, fmt.Errorf("eif: OCI layout: %w", err)
	}
	app, err := readOCI(layout, index, arm64)
	if err != nil {
		return nil, fmt.Errorf("eif: %w: OCI layout: %w", ErrMalformed, err)
	}
	return app, nil
}

func readOCI(layout fs.FS, index []byte, arm64 bool) (*App, error) {
	m, err := findManifest(layout, index, arm64)
	if err != nil {
		return nil, err
	}
	var config imageConfig
	if err := readJSON(layout, m.Config, &config); err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	app := &App{
		Root:        Files{},
		Command:     append(config.Config.Entrypoint[:len(config.Config.Entrypoint):len(config.Config.Entrypoint)], config.Config.Cmd...),
		Environment: config.Config.Env,
	}
	for i, layer := range m.Layers {
		if err := app.Root.addLayer(layout, layer); err != nil {
			return nil, fmt.Errorf("layer %d: %w", i, err)
		}
	}
	return app, nil
}

// findManifest goes down from the index to the only image that fits.
func findManifest(layout fs.FS, document []byte, arm64 bool) (manifest, error) {
	architecture := "amd64"
	if arm64 {
		architecture = "arm64"
	}
	for range maxIndexes {
		var m manifest
		if err := json.Unmarshal(document, &m); err != nil {
			return manifest{}, err
		}
		if m.Config.Digest != "" {
			return m, nil
		}
		var fitting []descriptor
		for _, d := range m.Manifests {
			if d.Platform == nil || d.Platform.OS == "linux" && d.Platform.Architecture == architecture {
				fitting = append(fitting, d)
			}
		}
		if len(fitting) != 1 {
			return manifest{}, fmt.Errorf("%d images for linux on %s instead of one", len(fitting), architecture)
		}
		var err error
		if document, err = readBlob(layout, fitting[0]); err != nil {
			return manifest{}, err
		}
	}
	return manifest{}, fmt.Errorf("more than %d indexes, one in the other", maxIndexes)
}

func readJSON(layout fs.FS, d descriptor, into any) error {
	blob, err := readBlob(layout, d)
	if err != nil {
		return err
	}
	return json.Unmarshal(blob, into)
}

// readBlob reads what the descriptor names, and nothing else.
func readBlob(layout fs.FS, d descriptor) ([]byte, error) {
	digits, ok := strings.CutPrefix(d.Digest, "sha256:")
	if raw, err := hex.DecodeString(digits); !ok || err != nil || len(raw) != sha256.Size {
		return nil, fmt.Errorf("%q is no SHA-256", d.Digest)
	}
	blob, err := fs.ReadFile(layout, path.Join("blobs", "sha256", digits))
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(blob); hex.EncodeToString(sum[:]) != digits {
		return nil, fmt.Errorf("the content of %s is another", d.Digest)
	}
	return blob, nil
}

// addLayer puts a layer above the files (layer.md): what it marks as gone goes
// first, then what it holds comes.
func (f Files) addLayer(layout fs.FS, d descriptor) error {
	blob, err := readBlob(layout, d)
	if err != nil {
		return err
	}
	var content io.Reader = bytes.NewReader(blob)
	switch {
	case strings.HasSuffix(d.MediaType, "+gzip") || strings.HasSuffix(d.MediaType, ".gzip"):
		if content, err = gzip.NewReader(content); err != nil {
			return err
		}
	case strings.HasSuffix(d.MediaType, "+zstd"):
		unzipped, err := zstd.NewReader(content, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxZstdWindow))
		if err != nil {
			return err
		}
		defer unzipped.Close()
		content = unzipped
	case !strings.HasSuffix(d.MediaType, ".tar"):
		return fmt.Errorf("media type %.100q is not understood", d.MediaType)
	}
	layer := Files{}
	// The limit ends the archive early, which is then an error of its own.
	archive := tar.NewReader(io.LimitReader(content, maxUnpacked))
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if err := f.addTar(layer, header, archive); err != nil {
			return fmt.Errorf("%.200q: %w", header.Name, err)
		}
	}
	for name, file := range layer {
		if file.Mode&modeKind != modeDir {
			f.removeBelow(name) // where there was a folder before
		}
		f[name] = file
	}
	return nil
}

const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
)

// addTar adds one entry to the layer, or removes what it marks from those below.
func (f Files) addTar(layer Files, header *tar.Header, content io.Reader) error {
	name := path.Clean(strings.TrimLeft(header.Name, "/"))
	if name == "." {
		return nil
	}
	if !fs.ValidPath(name) {
		return errors.New("leads out of the image")
	}
	dir, base := path.Split(name)
	switch {
	case base == opaque:
		f.removeBelow(strings.TrimSuffix(dir, "/"))
		return nil
	case strings.HasPrefix(base, whiteout):
		f.remove(dir + strings.TrimPrefix(base, whiteout))
		return nil
	}
	mode := uint32(header.Mode & 0o7777)
	switch header.Typeflag {
	case tar.TypeDir:
		layer[name] = File{Mode: modeDir | mode}
	case tar.TypeReg:
		b, err := io.ReadAll(content)
		if err != nil {
			return err
		}
		layer[name] = File{Mode: modeFile | mode, Content: b}
	case tar.TypeSymlink:
		layer[name] = File{Mode: modeSymlink | 0o777, Content: []byte(header.Linkname)}
	case tar.TypeLink:
		target := path.Clean(strings.TrimLeft(header.Linkname, "/"))
		file, there := layer[target]
		if !there {
			file, there = f[target]
		}
		if !there || file.Mode&modeKind != modeFile {
			return fmt.Errorf("is a link to %.200q, which is no file", header.Linkname)
		}
		layer[name] = file
	default:
		return fmt.Errorf("type %q is no folder, file or link", header.Typeflag)
	}
	return nil
}

// remove removes an entry and what is below it.
func (f Files) remove(name string) {
	delete(f, name)
	f.removeBelow(name)
}

func (f Files) removeBelow(dir string) {
	for name := range f {
		if dir == "" || strings.HasPrefix(name, dir+"/") {
			delete(f, name)
		}
	}
}
