package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
)

// A bench is a folder with what an image is made of.
type bench struct {
	t   *testing.T
	dir string
}

func newBench(t *testing.T) bench {
	t.Helper()
	b := bench{t, t.TempDir()}
	b.write("kernel", "kernel")
	b.write("init/init", "init")
	b.write("app/bin/app", "app")
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	b.write("cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})))
	b.write("key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
	return b
}

func (b bench) path(name string) string { return filepath.Join(b.dir, name) }

func (b bench) write(name, content string) {
	b.t.Helper()
	if err := os.MkdirAll(filepath.Dir(b.path(name)), 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(b.path(name), []byte(content), 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// build makes the image called out, from everything there is.
func (b bench) build(out string) result {
	b.t.Helper()
	return attest(b.t, "", "eif", "build", "--kernel", b.path("kernel"), "--cmdline", "console=ttyS0", "--out", b.path(out),
		"--ramdisk", b.path("init"), "--app", b.path("app"), "--cmd", "/bin/app", "--cmd=--port", "--cmd", "80", "--env", "A=b",
		"--name", "app", "--version", "1", "--sign-certificate", b.path("cert.pem"), "--sign-key", b.path("key.pem"))
}

func TestEIFRefuses(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.write("text", "text")
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{nil, exitUsage, "none of build"},
		{[]string{"burn"}, exitUsage, `"burn" is none of`},
		{[]string{"inspect"}, exitUsage, "0 images are given instead of 1"},
		{[]string{"diff", "a"}, exitUsage, "1 images are given instead of 2"},
		{[]string{"pcr", "--policy"}, exitUsage, "--policy: a value is missing"},
		{[]string{"inspect", b.path("missing")}, exitNotDone, "no such file"},
		{[]string{"inspect", b.path("text")}, exitNotGenuine, "no enclave image"},
		{[]string{"build", "--arch", "mips", "--env", "A=b", "--sign-key", "k", "x"}, exitUsage, "neither x86_64 nor arm64"},
		{[]string{"build", "--cmd", "a"}, exitUsage, "--cmd and --env need --app"},
		{[]string{"build", "--kernel", b.path("kernel"), "--cmdline", "a", "--out", b.path("x"), "--app", b.path("app")}, exitNotDone, "give --cmd"},
		{[]string{"build", "--kernel", b.path("missing"), "--cmdline", "a", "--out", b.path("x"), "--ramdisk", b.path("text")}, exitNotDone, "no such file"},
		{[]string{"build", "--kernel", b.path("kernel"), "--cmdline", "a", "--out", b.path("x"), "--ramdisk", b.path("missing")}, exitNotDone, "no such file"},
		{[]string{"build", "--kernel", b.path("kernel"), "--cmdline", "a\n", "--out", b.path("x"), "--ramdisk", b.path("text")}, exitNotDone, "not printable"},
		{[]string{"build", "--kernel", b.path("kernel"), "--cmdline", "a", "--out", b.path("x"), "--ramdisk", b.path("text"), "--sign-certificate", b.path("text"), "--sign-key", b.path("key.pem")}, exitNotDone, "--sign-certificate"},
		{[]string{"build", "--kernel", b.path("kernel"), "--cmdline", "a", "--out", b.path("x"), "--ramdisk", b.path("text"), "--sign-certificate", b.path("cert.pem"), "--sign-key", b.path("cert.pem")}, exitNotDone, "holds no ECDSA key"},
	} {
		attest(t, "", append([]string{"eif"}, tt.args...)...).wants(t, tt.code, tt.want)
	}
}

// An image is the same each time, says what it is, and its policy accepts its own
// registers.
func TestEIF(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	first := b.build("first.eif")
	first.wants(t, exitVerified, `"PCR0": "`, `"PCR8": "`)
	b.build("second.eif").wants(t, exitVerified)
	one, errOne := os.ReadFile(b.path("first.eif"))
	two, errTwo := os.ReadFile(b.path("second.eif"))
	if errOne != nil || errTwo != nil || !bytes.Equal(one, two) {
		t.Fatalf("two builds differ: %v, %v", errOne, errTwo)
	}
	if got := attest(t, "", "eif", "diff", b.path("first.eif"), b.path("second.eif")); got.code != exitVerified || got.stdout != "" {
		t.Errorf("they differ in %s", got.stdout)
	}
	attest(t, "", "eif", "inspect", b.path("first.eif")).wants(t, exitVerified,
		"x86_64, by default 1024 MiB and 2 CPUs", " 0  kernel ", `"console=ttyS0"`, `\"ImageName\":\"app\"`, `1970-01-01T00:00:00Z`, "signed by", "PCR2 ")
	var printed struct{ Measurements map[string]string }
	if err := json.Unmarshal([]byte(first.stdout), &printed); err != nil || len(printed.Measurements) != 5 {
		t.Errorf("the registers are printed as %s: %v", first.stdout, err)
	}

	policy := attest(t, "", "eif", "pcr", b.path("first.eif"), "--policy", "release 1")
	b.write("policy.toml", policy.stdout)
	attest(t, "", "policy", b.path("policy.toml")).wants(t, exitVerified, `"release 1" is expected`, "PCR0    "+printed.Measurements["PCR0"], "PCR8    "+printed.Measurements["PCR8"])

	b.write("app/bin/app", "apt")
	b.build("third.eif").wants(t, exitVerified)
	attest(t, "", "eif", "diff", b.path("first.eif"), b.path("third.eif")).wants(t, exitDiffers, `"rootfs/bin/app" has 3 bytes, 3 bytes, first difference at 2`)
}

func TestSourceDate(t *testing.T) {
	t.Parallel()
	if _, err := sourceDate("today"); err == nil {
		t.Error("today is a number")
	}
	if at, err := sourceDate("86400"); err != nil || at.UTC().Day() != 2 {
		t.Errorf("86400 is %v, %v", at, err)
	}
}
