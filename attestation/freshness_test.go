package attestation_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/attestation"
)

func TestFreshnessCheck(t *testing.T) {
	t.Parallel()
	nonce := []byte("twenty random bytes.")
	tests := []struct {
		name  string
		f     attestation.Freshness
		nonce []byte
		age   time.Duration
		want  string // part of the reason; empty means fresh
	}{
		{name: "no nonce asked for", f: attestation.Freshness{}, nonce: nil, want: "no nonce was asked for"},
		{name: "empty nonce asked for", f: attestation.Freshness{Nonce: []byte{}}, nonce: []byte{}, want: "no nonce was asked for"},
		{name: "no nonce in the document", f: attestation.Freshness{Nonce: nonce}, nonce: nil, want: "the document has none"},
		{name: "other nonce", f: attestation.Freshness{Nonce: nonce}, nonce: []byte("twenty random bytes!"), want: "another request"},
		{name: "longer nonce", f: attestation.Freshness{Nonce: nonce}, nonce: append(nonce[:20:20], 0), want: "another request"},
		{name: "too old", f: attestation.Freshness{Nonce: nonce}, nonce: nonce, age: attestation.DefaultMaxAge + time.Second, want: "5m1s old"},
		{name: "from the future", f: attestation.Freshness{Nonce: nonce, MaxAge: time.Second}, nonce: nonce, age: -2 * time.Second, want: "2s ahead"},
		{name: "just young enough", f: attestation.Freshness{Nonce: nonce}, nonce: nonce, age: attestation.DefaultMaxAge},
		{name: "old but allowed", f: attestation.Freshness{Nonce: nonce, MaxAge: 2 * time.Hour}, nonce: nonce, age: time.Hour},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := &attestation.Document{Claims: attestation.Claims{Nonce: tt.nonce, Timestamp: now().Add(-tt.age)}}
			err := tt.f.Check(d, now())
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if !errors.Is(err, attestation.ErrNotFresh) || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want %v: %s", err, attestation.ErrNotFresh, tt.want)
			}
		})
	}
}
