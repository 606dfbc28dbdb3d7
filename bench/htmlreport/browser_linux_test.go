package htmlreport_test

import (
	"context"
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/corridor-enclave/corridor/tapstack/tapstacktest"
)

// TestBrowserDrawsThePage opens the page in Chromium, in light and in dark, and
// looks for its colours: the page's own, and those of the bars.
func TestBrowserDrawsThePage(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "report.html")
	if err := os.WriteFile(file, []byte(render(t, full())), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, scheme string
		page, first  color.RGBA
	}{
		{"light", "1", color.RGBA{0xf6, 0xf6, 0xf4, 0xff}, color.RGBA{0x2a, 0x78, 0xd6, 0xff}},
		{"dark", "0", color.RGBA{0x12, 0x12, 0x11, 0xff}, color.RGBA{0x39, 0x87, 0xe5, 0xff}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			picture := screenshot(t, file, tt.scheme)
			if got := color.RGBAModel.Convert(picture.At(1, 1)); got != tt.page {
				t.Errorf("the page is %v, want %v", got, tt.page)
			}
			bars := 0
			for y := range picture.Bounds().Dy() {
				for x := range picture.Bounds().Dx() {
					if color.RGBAModel.Convert(picture.At(x, y)) == tt.first {
						bars++
					}
				}
			}
			if bars < 5000 {
				t.Errorf("only %d points have the first colour of the charts", bars)
			}
		})
	}
}

// screenshot opens the page and returns what it looks like.
func screenshot(t *testing.T, file, scheme string) image.Image {
	t.Helper()
	out := filepath.Join(t.TempDir(), "page.png")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := tapstacktest.Chromium(ctx, t, "--blink-settings=preferredColorScheme="+scheme, "--window-size=1240,3000", "--screenshot="+out, "file://"+file)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	f, err := os.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	picture, err := png.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	return picture
}
