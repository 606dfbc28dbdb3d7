package front_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/attestation/attestationtest"
	"github.com/corridor-enclave/corridor/enclave/front"
	"github.com/corridor-enclave/corridor/enclave/page"
	"github.com/corridor-enclave/corridor/tapstack/tapstacktest"
)

// A browser is Chromium, told what to do by its DevTools protocol: JSON with a zero
// byte behind, by file descriptors 3 and 4.
type browser struct {
	t       *testing.T
	to      io.Writer
	from    *bufio.Reader
	id      int
	session string
}

// openBrowser starts a browser, which trusts any certificate.
func openBrowser(t *testing.T) *browser {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute) // it closes after the test's context has ended
	t.Cleanup(cancel)
	cmd := tapstacktest.Chromium(ctx, t, "--ignore-certificate-errors", "--remote-debugging-pipe", "--window-size=1000,1000")
	theirIn, ourOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	ourIn, theirOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.ExtraFiles = []*os.File{theirIn, theirOut}
	err = cmd.Start()
	theirIn.Close()
	theirOut.Close()
	if err != nil {
		t.Fatal(err)
	}
	b := &browser{t: t, to: ourOut, from: bufio.NewReader(ourIn)}
	t.Cleanup(func() {
		b.call("Browser.close", nil, nil)
		ourOut.Close()
		_ = cmd.Wait() // it may mind how it was asked to go; the test does not
		ourIn.Close()
	})
	var target struct{ TargetID, SessionID string }
	b.call("Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	b.call("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &target)
	b.session = target.SessionID
	return b
}

// call asks the browser for one thing and waits for the answer.
func (b *browser) call(method string, params, result any) {
	b.t.Helper()
	b.id++
	message := map[string]any{"id": b.id, "method": method}
	if params != nil {
		message["params"] = params
	}
	if b.session != "" && method != "Browser.close" {
		message["sessionId"] = b.session
	}
	text, err := json.Marshal(message)
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.to.Write(append(text, 0)); err != nil {
		b.t.Fatal(err)
	}
	for {
		text, err := b.from.ReadBytes(0)
		if errors.Is(err, io.EOF) && method == "Browser.close" {
			return
		}
		if err != nil {
			b.t.Fatalf("%s: %v", method, err)
		}
		var answer struct {
			ID     int
			Error  json.RawMessage
			Result json.RawMessage
		}
		if err := json.Unmarshal(text[:len(text)-1], &answer); err != nil || answer.ID == b.id && answer.Error != nil {
			b.t.Fatalf("%s: %v, %s", method, err, text)
		}
		if answer.ID != b.id {
			continue // an event, or what another call did not wait for
		}
		if result == nil {
			return
		}
		if err := json.Unmarshal(answer.Result, result); err != nil {
			b.t.Fatalf("%s: %v, %s", method, err, text)
		}
		return
	}
}

// open goes to an address, and returns once that has begun to answer.
func (b *browser) open(url string) {
	b.t.Helper()
	var r struct{ ErrorText string }
	b.call("Page.navigate", map[string]any{"url": url}, &r)
	if r.ErrorText != "" {
		b.t.Fatalf("%s: %s", url, r.ErrorText)
	}
}

// eval returns what an expression in the page gives, or the promise that it gives.
func (b *browser) eval(expression string) string {
	b.t.Helper()
	var r struct {
		Result           struct{ Value string }
		ExceptionDetails json.RawMessage
	}
	b.call("Runtime.evaluate", map[string]any{"expression": expression, "awaitPromise": true, "returnByValue": true, "allowUnsafeEvalBlockedByCSP": false}, &r)
	if r.ExceptionDetails != nil {
		b.t.Fatalf("%s: %s", expression, r.ExceptionDetails)
	}
	return r.Result.Value
}

// keepPicture writes what the page looks like, for people, if they want it.
func (b *browser) keepPicture(name string) {
	dir := os.Getenv("CORRIDOR_PICTURES")
	if dir == "" {
		return
	}
	var picture struct{ Data string }
	b.call("Page.captureScreenshot", map[string]any{"captureBeyondViewport": true}, &picture)
	raw, err := base64.StdEncoding.DecodeString(picture.Data)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), raw, 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// settled is a promise for the page's verdict, once it has one.
const settled = `new Promise((resolve) => {
	const look = () => document.body?.dataset.state === "done" ? resolve([
		document.getElementById("verdict").className, document.getElementById("verdict").innerText,
		...Array.from(document.querySelectorAll("#steps li"), (e) => e.dataset.check + " " + e.dataset.result),
	].join("\n")) : setTimeout(look, 20);
	look();
})`

// fill puts text into a field.
func (b *browser) fill(id, text string) {
	quoted, err := json.Marshal(text)
	if err != nil {
		b.t.Fatal(err)
	}
	b.eval(`document.getElementById("` + id + `").value = ` + string(quoted) + `; ""`)
}

// ask has the page check again.
func (b *browser) ask() string {
	return b.eval(`document.querySelector("button").click(); ` + settled)
}

// TestBrowser: the page verifies in a browser what the front answers, under its own
// Content-Security-Policy.
func TestBrowser(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "go", "run", "../page/pack", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	p, err := page.New(os.DirFS(dir))
	if err != nil {
		t.Fatal(err)
	}
	module, err := attestationtest.NewModule(attestationtest.Options{Seed: t.Name()})
	if err != nil {
		t.Fatal(err)
	}
	certificates := newCertificates(t)
	base, _ := overTCP(t, front.Config{
		Certificates: certificates, Page: p, Evidence: runIssuer(t, module, certificates),
		Published: map[string]any{"simulated": true, "source_url": "https://example.org/source"},
	})
	b := openBrowser(t)
	b.open(base + "/enclave")

	expect := func(picture, got string, want ...string) {
		t.Helper()
		b.keepPicture(picture)
		for _, text := range want {
			if !strings.Contains(got, text) {
				t.Errorf("the page does not say %q:\n%s", text, got)
			}
		}
	}
	expect("other-root", b.eval(settled), "banner bad", "Not verified: not genuine", "no trusted root", "document ok", "chain FAIL")
	b.fill("root", string(module.RootPEM()))
	expect("genuine", b.ask(), "banner open", "Which one is open", "signature ok", "nonce ok", "PCRs warn", "key binding warn")
	b.fill("expected", "PCR0 = "+strings.Repeat("ab", 48))
	expect("other-image", b.ask(), "banner bad", "Not verified: not expected", "PCR0 differs", "PCRs FAIL")
	b.fill("expected", "PCR0 = 12")
	expect("mistake", b.ask(), "banner open", "Nothing was checked", "2 hex digits instead of 96")
	b.fill("expected", string(module.PolicyTOML()))
	expect("expected", b.ask(), "banner good", "A genuine enclave of the expected image", "nonce ok", "PCRs ok", "key binding warn")
	digests := b.eval(`document.getElementById("digests").innerText`)
	if key := sha256.Sum256(certificates.Current().Leaf.RawSubjectPublicKeyInfo); !strings.Contains(digests, hex.EncodeToString(key[:])) {
		t.Errorf("the page names %s, not %x", digests, key)
	}
	if b.eval(`String(document.getElementById("simulated").hidden)+document.getElementById("source").href`) != "falsehttps://example.org/source" {
		t.Error("the page does not show what the enclave says of itself")
	}
	// Injected code does not run.
	if got := b.eval(`try { eval("1"); "runs" } catch (e) { e.name }`); got != "EvalError" {
		t.Errorf("eval: %s", got)
	}
}
