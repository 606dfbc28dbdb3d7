package front

import (
	"encoding/pem"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/go-chi/chi/v5"
)

const (
	textType = "text/plain; charset=utf-8"
	jsonType = "application/json"
	pemType  = "application/pem-certificate-chain" // RFC 8555, section 9.1
)

// answer writes a whole response that no cache may keep: all of these say how
// the enclave is now.
func answer[T string | []byte](w http.ResponseWriter, status int, contentType string, body T) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Length", strconv.Itoa(len(body))) // net/http counts small ones only, and cuts others in chunks
	w.WriteHeader(status)
	_, _ = w.Write([]byte(body)) // an error means that the client is gone
}

// page explains the enclave to whoever finds it: to browsers by a page that checks
// it, where there is something to check.
func (f *Front) page(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Vary", "Accept")
	if f.cfg.Page != nil && f.cfg.Certificates != nil && accepts(r, "text/html") && f.cfg.Page.Serve(w, r, "") {
		return
	}
	var b strings.Builder
	b.WriteString("This is an enclave, behind a Corridor sidecar.\n\n")
	if f.cfg.Certificates == nil {
		b.WriteString("It serves plain HTTP, so nothing about it can be proven.\n\n")
	} else {
		b.WriteString("The TLS connection that brought you this page ends inside the enclave. Do not\n" +
			"take its word for that. Ask for its attestation document with a nonce of your own,\n" +
			"and check signature, nonce, measurements, and that it names this certificate:\n\n" +
			"    attest verify URL --policy FILE\n\n")
	}
	if f.cfg.Source != nil {
		fmt.Fprintf(&b, "The source that the image is said to be built from, to measure it yourself:\n\n    %s\n\n", f.cfg.Source)
	}
	b.WriteString("GET /enclave/attestation?nonce=HEX  document for 40 hex digits of your choice\n" +
		"                                    or, with Accept: application/json, more of it\n" +
		"GET /enclave/certificates           certificates in PEM\n" +
		"GET /enclave/config                 configuration, as far as it is public\n" +
		"GET /enclave/health                 200 if requests are welcome, else 503\n" +
		"Everything else is the app's.\n")
	answer(w, http.StatusOK, textType, b.String())
}

// pageFile answers with what belongs to the page.
func (f *Front) pageFile(w http.ResponseWriter, r *http.Request) {
	if name := chi.URLParam(r, "file"); f.cfg.Page == nil || name == "" || !f.cfg.Page.Serve(w, r, name) {
		notFound(w, r)
	}
}

func (f *Front) config(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, jsonType, string(f.published))
}

// health is 200 if a request to the app would be handed on now.
func (f *Front) health(w http.ResponseWriter, _ *http.Request) {
	status, word := http.StatusOK, "ready"
	switch {
	case f.draining.Load():
		status, word = http.StatusServiceUnavailable, "draining"
	case !f.cfg.App.Ready():
		status, word = http.StatusServiceUnavailable, "waiting for the app"
	}
	if status != http.StatusOK {
		w.Header().Set("Retry-After", retryAfter)
	}
	answer(w, status, jsonType, fmt.Sprintf("{\"status\":%q}\n", word))
}

// certificates shows what TLS presents to new connections, leaf first.
func (f *Front) certificates(w http.ResponseWriter, _ *http.Request) {
	if f.cfg.Certificates == nil {
		answer(w, http.StatusNotFound, textType, withoutTLS)
		return
	}
	var b strings.Builder
	for _, der := range f.cfg.Certificates.Current().Certificate {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	answer(w, http.StatusOK, pemType, b.String())
}
