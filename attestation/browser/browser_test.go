package browser_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/attestation"
	"github.com/corridor-enclave/corridor/attestation/attestationtest"
	"github.com/corridor-enclave/corridor/attestation/browser"
	"github.com/corridor-enclave/corridor/attestation/findings"
	"github.com/corridor-enclave/corridor/attestation/nsm"
)

const nonce = "000102030405060708090a0b0c0d0e0f10111213"

// evidence is an enclave's answer to the nonce.
func evidence(t testing.TB, m *attestationtest.Module) string {
	t.Helper()
	raw, err := hex.DecodeString(nonce)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := attestation.LeafHash(raw, nil)
	if err != nil {
		t.Fatal(err)
	}
	userData, err := attestation.Statement{
		Purpose: attestation.PurposeBatch, Keys: []attestation.Digest{sha256.Sum256([]byte("key"))},
		Tree: attestation.TreeHead{Size: 1, Root: leaf},
	}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	session := nsm.NewSession(m)
	defer session.Close()
	document, err := session.Attest(context.Background(), nsm.AttestationRequest{UserData: userData})
	if err != nil {
		t.Fatal(err)
	}
	return string(attestation.Evidence{Document: document, Proof: &attestation.Proof{Size: 1}}.Encode())
}

func examine(t testing.TB, q browser.Request) browser.Answer {
	t.Helper()
	b, err := json.Marshal(q)
	if err != nil {
		t.Fatal(err)
	}
	var a browser.Answer
	if err := json.Unmarshal(browser.Examine(b, time.Now), &a); err != nil {
		t.Fatal(err)
	}
	return a
}

func TestExamine(t *testing.T) {
	t.Parallel()
	m, err := attestationtest.NewModule(attestationtest.Options{Seed: t.Name()})
	if err != nil {
		t.Fatal(err)
	}
	good := browser.Request{Evidence: evidence(t, m), Nonce: nonce, Root: string(m.RootPEM()), Expected: string(m.PolicyTOML())}
	tests := []struct {
		name    string
		edit    func(*browser.Request)
		verdict string
		results string // of the checks, by their first letters
	}{
		{"no evidence", func(q *browser.Request) { q.Evidence = "" }, "not genuine", "F"},
		{"AWS's root", func(q *browser.Request) { q.Root = "" }, "not genuine", "oF"},
		{"changed", func(q *browser.Request) { q.Evidence = strings.Replace(q.Evidence, "hEShATgi", "hEShATgj", 1) }, "not genuine", "F"},
		{"other nonce", func(q *browser.Request) { q.Nonce = strings.Repeat("11", 20) }, "not fresh", "ooooFoow"},
		{"no nonce", func(q *browser.Request) { q.Nonce = "" }, "not fresh", "ooooFoow"},
		{"other image", func(q *browser.Request) { q.Expected = "PCR0 = " + strings.Repeat("11", 48) }, "not expected", "ooooooFw"},
		// What a page cannot see is left open, so it never says verified.
		{"nothing expected", func(q *browser.Request) { q.Expected = "" }, "could not be done", "ooooooww"},
		{"good", func(*browser.Request) {}, "could not be done", "ooooooow"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			q := good
			tt.edit(&q)
			a := examine(t, q)
			if a.Report == nil {
				t.Fatal(a.Mistake)
			}
			results := ""
			for _, c := range a.Report.Checks {
				results += c.Result[:1]
			}
			if a.Report.Verdict != tt.verdict || results != tt.results || a.Report.Verified {
				t.Errorf("%s (%s), checks %s; want %s, %s\n%+v", a.Report.Verdict, a.Report.Reason, results, tt.verdict, tt.results, a.Report.Checks)
			}
			if results == "ooooooow" && (len(a.Report.Keys) != 1 || a.Report.Exit != findings.NotDone) {
				t.Errorf("keys %q, code %d", a.Report.Keys, a.Report.Exit)
			}
		})
	}
	for name, mistake := range map[string]struct {
		q    browser.Request
		says string
	}{
		"nonce":    {browser.Request{Nonce: "x"}, "nonce"},
		"root":     {browser.Request{Root: "x"}, "root: neither PEM"},
		"expected": {browser.Request{Expected: "x"}, "not of the form PCR0 = HEX"},
		"debug":    {browser.Request{Expected: "0=" + strings.Repeat("0", 96)}, "debug mode"},
	} {
		if a := examine(t, mistake.q); !strings.Contains(a.Mistake, mistake.says) || a.Report != nil {
			t.Errorf("%s: %+v", name, a)
		}
	}
	if got := string(browser.Examine([]byte("{"), time.Now)); !strings.Contains(got, "the page: ") {
		t.Errorf("broken request: %s", got)
	}
}

func TestExpect(t *testing.T) {
	t.Parallel()
	a, b := strings.Repeat("aa", 48), strings.Repeat("bb", 48)
	for _, text := range []string{
		"PCR0 = " + a + "\r\nPCR2=" + b, "0:" + a + "\n\n 2: " + b, "\"pcr0\": \"" + a + "\",\n\"pcr2\": \"" + b + "\"",
		fmt.Sprintf(`{"Measurements": {"HashAlgorithm": "Sha384 { ... }", "PCR0": %q, "PCR2": %q}}`, a, b),
		fmt.Sprintf("[[accept]]\n[accept.pcrs]\n0 = %q\n2 = %q\n", a, b),
	} {
		got, err := browser.Expect(text)
		if err != nil || len(got) != 1 || len(got[0].PCRs) != 2 || hex.EncodeToString(got[0].PCRs[0]) != a || hex.EncodeToString(got[0].PCRs[2]) != b {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for text, says := range map[string]string{
		"0=" + a + "\nPCR0=" + b: "given twice", "0=12": "2 hex digits", "99=" + a: "not a PCR", "{": "JSON", "[[accept": "line 1",
		`{"Measurements": {"PCRx": ""}}`: "not a PCR", strings.Repeat("x", 1<<20+1): "the limit is",
	} {
		if _, err := browser.Expect(text); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%.40s: %v, want %q", text, err, says)
		}
	}
}

// FuzzExpect: whatever is expected can be held against documents, or is refused
// with a reason.
func FuzzExpect(f *testing.F) {
	f.Add("PCR0 = " + strings.Repeat("aa", 48))
	f.Add(`{"Measurements": {"PCR0": "` + strings.Repeat("aa", 48) + `"}}`)
	f.Add("[[accept]]\n[accept.pcrs]\n0 = \"" + strings.Repeat("aa", 48) + "\"")
	f.Fuzz(func(t *testing.T, text string) {
		accept, err := browser.Expect(text)
		if err != nil {
			return
		}
		for _, a := range accept {
			for i, value := range a.PCRs {
				if i < 0 || i >= attestation.MaxPCRs || len(value) != attestation.PCRSize {
					t.Fatalf("PCR%d of %d bytes", i, len(value))
				}
			}
		}
		if _, err := attestation.NewPolicy(accept, true); err != nil && err.Error() == "" {
			t.Fatal("refused without a reason")
		}
	})
}
