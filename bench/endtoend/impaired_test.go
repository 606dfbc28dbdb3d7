package endtoend_test

import (
	"crypto/sha256"
	"encoding/hex"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/bench/sampleapp"
)

// TestIntegrationBadLines puts a bad line between the two ends of the link. What an
// app sends must arrive whole all the same: both ends have a TCP for that.
func TestIntegrationBadLines(t *testing.T) {
	t.Parallel()
	requireNamespaces(t)
	const size = 1 << 20
	for _, tt := range []struct{ name, line, suffered string }{
		{"far away", "delay=20ms", ""},
		{"slow", "rate=50Mbit,queue=64KiB,delay=2ms", ""},
		{"everything at once", "delay=5ms,jitter=2ms,loss=2%,duplicate=2%,reorder=2%", " 0 lost"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := &corridor{t: t, dir: shortTempDir(t)}
			c.startHost("127.0.0.1:0")
			far := shortTempDir(t) // where the enclave thinks that the host is
			line := launch(t, "bench", "impair", "--frames", "--seed", "3", "--line", tt.line,
				"--listen", "unix:"+filepath.Join(far, "3_1024.sock"), "--dial", "unix:"+filepath.Join(c.dir, "3_1024.sock"))
			waitMessage(t, line, "listening")
			c.enclave = launch(t, "enclave-sim", "--isolate", "--vsock", "dir:"+far, "--fqdn", fqdn, "--nsm-out", c.trust(), "--app", "http://"+appAddress,
				"--app-cmd", filepath.Join(bin, "bench")+" app --listen tcp:"+appAddress)
			waitMessage(t, c.enclave, "link is up")
			c.client = c.newClient()
			c.untilAnswered()

			sum := sha256.Sum256([]byte(c.mustGet("/bytes?n=1048576")))
			if got, want := hex.EncodeToString(sum[:]), sampleapp.PatternSHA256(size); got != want {
				t.Errorf("what came through the line has SHA-256 %s, want %s", got, want)
			}
			c.client.CloseIdleConnections()
			c.enclave.Stop(patience)
			ended := waitMessage(t, line, "ended")
			if uplink := ended.Text("uplink"); tt.suffered != "" && strings.Contains(uplink, tt.suffered) {
				t.Errorf("the line was too good: %s", uplink)
			}
			if code := line.Stop(5 * time.Second); code != 0 {
				t.Errorf("the line ended with exit %d", code)
			}
		})
	}
}
