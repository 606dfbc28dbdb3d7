package page_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/corridor-enclave/corridor/enclave/page"
)

const program = "\x00asm and so on"

// packed is a folder as pack leaves it.
func packed(t *testing.T) fstest.MapFS {
	t.Helper()
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	if _, err := io.WriteString(z, program); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return fstest.MapFS{page.VerifierFile: {Data: zipped.Bytes()}, page.GlueFile: {Data: []byte("glue")}}
}

func TestWithoutVerifier(t *testing.T) {
	t.Parallel()
	for _, missing := range []string{page.VerifierFile, page.GlueFile} {
		folder := packed(t)
		delete(folder, missing)
		if p, err := page.New(folder); !errors.Is(err, page.ErrNoVerifier) || p != nil {
			t.Errorf("without %s: %v, %v", missing, p, err)
		}
	}
	if _, err := page.Built().Open("README.md"); err != nil {
		t.Errorf("what is built in cannot be read: %v", err)
	}
}

func TestServe(t *testing.T) {
	t.Parallel()
	p, err := page.New(packed(t))
	if err != nil {
		t.Fatal(err)
	}
	serve := func(method, name string, header http.Header) *httptest.ResponseRecorder {
		w, r := httptest.NewRecorder(), httptest.NewRequest(method, "/", nil)
		r.Header = header
		if !p.Serve(w, r, name) {
			return nil
		}
		return w
	}
	for _, name := range []string{"page.html", page.VerifierFile, "README.md", "../page.go", "x"} {
		if w := serve(http.MethodGet, name, nil); w != nil {
			t.Errorf("%q is served: %d", name, w.Code)
		}
	}
	for _, tt := range []struct {
		name, accepts, contentType, encoding, says string
	}{
		{"", "", "text/html; charset=utf-8", "", "<h1>Enclave"},
		{"page.css", "gzip", "text/css; charset=utf-8", "", "color-scheme"},
		{"page.js", "", "text/javascript; charset=utf-8", "", "corridorExamine"},
		{page.GlueFile, "", "text/javascript; charset=utf-8", "", "glue"},
		{"verify.wasm", "", "application/wasm", "", program},
		{"verify.wasm", "br, gzip", "application/wasm", "gzip", "\x1f\x8b"},
	} {
		w := serve(http.MethodGet, tt.name, http.Header{"Accept-Encoding": {tt.accepts}})
		if w == nil {
			t.Errorf("%q is not served", tt.name)
			continue
		}
		h := w.Header()
		if w.Code != http.StatusOK || h.Get("Content-Type") != tt.contentType || h.Get("Content-Encoding") != tt.encoding || !strings.Contains(w.Body.String(), tt.says) {
			t.Errorf("%q = %d %v", tt.name, w.Code, h)
		}
		if h.Get("Content-Security-Policy") != page.Policy || h.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%q may do anything: %v", tt.name, h)
		}
		if again := serve(http.MethodGet, tt.name, http.Header{"If-None-Match": {h.Get("ETag")}}); again.Code != http.StatusNotModified || again.Body.Len() != 0 {
			t.Errorf("%q asked for again: %d, %d bytes", tt.name, again.Code, again.Body.Len())
		}
		if head := serve(http.MethodHead, tt.name, nil); head.Code != http.StatusOK || head.Body.Len() != 0 {
			t.Errorf("HEAD of %q: %d, %d bytes", tt.name, head.Code, head.Body.Len())
		}
	}
}
