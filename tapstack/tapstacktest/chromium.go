package tapstacktest

import (
	"context"
	"os/exec"
	"testing"
	"time"
)

// Chromium returns the command of a browser without a window, with a profile of its
// own and no business elsewhere; the test ends here where there is none. args come
// behind what makes it so. It is killed when ctx ends.
func Chromium(ctx context.Context, t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	path, err := exec.LookPath("chromium")
	Require(t, err, "chromium", "apt-get install chromium")
	cmd := exec.CommandContext(ctx, path, append([]string{
		"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync",
		"--user-data-dir=" + t.TempDir(), "--hide-scrollbars",
	}, args...)...)
	cmd.WaitDelay = 10 * time.Second
	return cmd
}
