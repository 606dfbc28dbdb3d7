// Package page is what a browser gets for GET /enclave: a page that fetches an
// attestation document and verifies it with the Go code that attest is made of,
// compiled to WebAssembly. It decides nothing about documents (attestation/browser
// does) and makes none.
package page

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"
)

//go:embed page.html page.css page.js
var own embed.FS

//go:embed built
var built embed.FS

// The names of the files that pack makes.
const (
	// VerifierFile is the verifier, as gzip.
	VerifierFile = "verify.wasm.gz"
	// GlueFile starts programs of Go's compiler in browsers.
	GlueFile = "wasm_exec.js"
)

// Policy is the Content-Security-Policy of the page: it runs its own files and
// WebAssembly, talks to its own origin, and nothing may frame it.
const Policy = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// ErrNoVerifier reports that nobody has put the verifier where it belongs: the
// program was built without make build.
var ErrNoVerifier = errors.New("page: built without the verifier for browsers")

// A Page is the page and its files. It is safe for concurrent use.
type Page struct {
	files map[string]file
}

type file struct {
	content     []byte
	contentType string
	zipped      bool
	tag         string
}

// Built returns what this program was built with, for New.
func Built() fs.FS {
	sub, err := fs.Sub(built, "built")
	if err != nil {
		return built // never: the folder is named above; and New finds nothing there
	}
	return sub
}

// New returns the page with the verifier that pack has put into a folder. It fails
// with ErrNoVerifier if there is none.
func New(verifier fs.FS) (*Page, error) {
	p := &Page{files: make(map[string]file)}
	for _, f := range []struct {
		from        fs.FS
		name, path  string
		contentType string
	}{
		{own, "page.html", "", "text/html; charset=utf-8"},
		{own, "page.css", "page.css", "text/css; charset=utf-8"},
		{own, "page.js", "page.js", "text/javascript; charset=utf-8"},
		{verifier, GlueFile, GlueFile, "text/javascript; charset=utf-8"},
		{verifier, VerifierFile, strings.TrimSuffix(VerifierFile, ".gz"), "application/wasm"},
	} {
		content, err := fs.ReadFile(f.from, f.name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, ErrNoVerifier
		}
		if err != nil {
			return nil, fmt.Errorf("page: %w", err)
		}
		tag := fmt.Sprintf(`"%x"`, sha256.Sum256(content))
		p.files[f.path] = file{content, f.contentType, strings.HasSuffix(f.name, ".gz"), tag}
	}
	return p, nil
}

// Serve answers with the page, which has no name, or one of its files. It returns
// false, and has written nothing, if there is no file of that name.
func (p *Page) Serve(w http.ResponseWriter, r *http.Request, name string) bool {
	f, ok := p.files[name]
	if !ok {
		return false
	}
	h := w.Header()
	h.Set("Content-Type", f.contentType)
	h.Set("Content-Security-Policy", Policy)
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-cache") // ask again each time: another image may answer
	h.Set("ETag", f.tag)
	if r.Header.Get("If-None-Match") == f.tag {
		w.WriteHeader(http.StatusNotModified)
		return true
	}
	f.write(w, r)
	return true
}

// write sends the content. Errors mean that the client is gone, and that what was
// compressed here can be read here.
func (f file) write(w http.ResponseWriter, r *http.Request) {
	content := io.Reader(bytes.NewReader(f.content))
	if f.zipped {
		w.Header().Add("Vary", "Accept-Encoding")
		if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
			w.Header().Set("Content-Encoding", "gzip")
		} else if unzipped, err := gzip.NewReader(content); err == nil {
			content = unzipped
		}
	}
	if r.Method != http.MethodHead {
		_, _ = io.Copy(w, content)
	}
}
