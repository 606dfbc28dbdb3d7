package appapi

import (
	"bytes"
	"encoding/base64"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// FuzzHash: a body is accepted only if it is the base64 of what is then the
// hash, with line ends and blanks around it left aside.
func FuzzHash(f *testing.F) {
	good := base64.StdEncoding.EncodeToString(make([]byte, hashSize))
	f.Add([]byte(good + "\n"))
	f.Add([]byte(good[:20] + "\r\n" + good[20:]))
	f.Add([]byte("AAAA"))
	f.Add([]byte{0xff})
	f.Fuzz(func(t *testing.T, body []byte) {
		api := New(Config{Log: slog.New(slog.DiscardHandler)})
		w := httptest.NewRecorder()
		api.server.Handler.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/enclave/hash", bytes.NewReader(body)))
		hash := api.KeyHash()
		if w.Code == http.StatusOK {
			got := strings.NewReplacer("\r", "", "\n", "").Replace(string(bytes.TrimSpace(body)))
			if got != base64.StdEncoding.EncodeToString(hash[:]) {
				t.Fatalf("%q set the hash %x", body, hash)
			}
			return
		}
		if w.Code != http.StatusBadRequest || hash != [hashSize]byte{} {
			t.Fatalf("%q: %d, hash %x", body, w.Code, hash)
		}
	})
}
