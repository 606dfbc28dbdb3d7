package status_test

import (
	"context"
	"image/color"
	"image/png"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/host/status"
	"github.com/corridor-enclave/corridor/tapstack/tapstacktest"
)

// TestBrowser opens the page in Chromium, light and dark, lets it ask the host many
// times in virtual time, and reads what it has made of the answers. With
// CORRIDOR_PICTURES=FOLDER the pictures are kept, for people.
func TestBrowser(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, scheme string
		page, line   color.RGBA
	}{
		{"light", "1", color.RGBA{0xf6, 0xf6, 0xf4, 0xff}, color.RGBA{0x1b, 0x5f, 0xb5, 0xff}},
		{"dark", "0", color.RGBA{0x12, 0x12, 0x11, 0xff}, color.RGBA{0x7f, 0xb3, 0xf0, 0xff}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			host := httptest.NewServer(status.Handler(newStage().config))
			defer host.Close()
			picture, dom := browse(t, host.URL, tt.scheme, "status-"+tt.name)
			for _, want := range []string{
				`class="pill good" role="status">Ready<`, `data-cid="18"`, ":8443=stream:1443@16,17", "metadata <b>14</b>", "denied <b>3</b>",
				"&lt;img src=x", "Mbit/s", "31 TCP 2 UDP", "silent for 5 min", `<path d="M`,
			} {
				if !strings.Contains(dom, want) {
					t.Errorf("the page lacks %q", want)
				}
			}
			for _, unwanted := range []string{"<img", "<title>owned", "NaN", "undefined", "Infinity", "does not answer"} {
				if strings.Contains(dom, unwanted) {
					t.Errorf("the page has %q", unwanted)
				}
			}
			if t.Failed() {
				t.Log(dom)
			}
			f, err := os.Open(picture)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			decoded, err := png.Decode(f)
			if err != nil {
				t.Fatal(err)
			}
			if got := color.RGBAModel.Convert(decoded.At(1, 1)); got != tt.page {
				t.Errorf("the page is %v, want %v", got, tt.page)
			}
			drawn := 0
			for y := range decoded.Bounds().Dy() {
				for x := range decoded.Bounds().Dx() {
					if color.RGBAModel.Convert(decoded.At(x, y)) == tt.line {
						drawn++
					}
				}
			}
			if drawn < 100 {
				t.Errorf("only %d points have the colour of the graphs", drawn)
			}
		})
	}
}

// browse opens the page, and returns where the picture is, and the page as it has
// become.
func browse(t *testing.T, url, scheme, name string) (picture, dom string) {
	t.Helper()
	picture = filepath.Join(t.TempDir(), name+".png")
	if kept := os.Getenv("CORRIDOR_PICTURES"); kept != "" {
		picture = filepath.Join(kept, name+".png")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := tapstacktest.Chromium(ctx, t, "--blink-settings=preferredColorScheme="+scheme, "--window-size=1280,1000",
		"--virtual-time-budget=60000", "--screenshot="+picture, "--dump-dom", url)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	return picture, string(out)
}
