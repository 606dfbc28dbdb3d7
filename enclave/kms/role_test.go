package kms_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/attestation/attestationtest"
	"github.com/corridor-enclave/corridor/enclave/kms/kmstest"
)

func TestInstanceRole(t *testing.T) {
	t.Parallel()
	// at answers a path with a text, and all else as the service does.
	at := func(path, text string) func(*kmstest.Service) {
		return func(s *kmstest.Service) {
			next := s.Metadata
			s.Metadata = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == path {
					_, _ = io.WriteString(w, text)
					return
				}
				next.ServeHTTP(w, r)
			})
		}
	}
	const roles = "/latest/meta-data/iam/security-credentials/"
	tests := []struct {
		name string
		edit func(*kmstest.Service)
		says string
	}{
		{"no service", func(s *kmstest.Service) { s.Metadata = http.NotFoundHandler() }, "answers 404"},
		{"no token", at("/latest/api/token", "wrong"), "answers 401"},
		{"no role", at(roles, ""), `"" is no role`},
		{"role that is a path", at(roles, "../x"), "is no role"},
		{"no JSON", at(roles+kmstest.Role, "<html>"), "not the JSON"},
		{"failure", at(roles+kmstest.Role, `{"Code":"Failed"}`), `code "Failed"`},
		{"no expiration", at(roles+kmstest.Role, `{"Code":"Success","AccessKeyId":"a","SecretAccessKey":"b"}`), "no credentials"},
		{"endless", at(roles, strings.Repeat("x/", 1<<20)), "is no role"},
		{"good", func(*kmstest.Service) {}, ""},
	}
	m := newModule(t, attestationtest.Options{})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newService(t, m)
			tt.edit(s)
			c, err := newRole(t, s).Retrieve(t.Context())
			if tt.says != "" {
				if err == nil || !strings.Contains(err.Error(), tt.says) || c.HasKeys() {
					t.Fatalf("%v, want %q", err, tt.says)
				}
				return
			}
			if err != nil || c.AccessKeyID != kmstest.AccessKeyID || c.SessionToken == "" || !c.CanExpire || time.Until(c.Expires) < 30*time.Minute {
				t.Errorf("%+v, %v", c, err)
			}
		})
	}
}
