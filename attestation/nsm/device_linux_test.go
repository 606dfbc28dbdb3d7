//go:build amd64 || arm64

package nsm

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
)

func TestMessageLayout(t *testing.T) {
	t.Parallel()
	if got := reflect.TypeFor[nsmMessage]().Size(); got != ioctlNSM>>16&0x3fff {
		t.Fatalf("message of %d bytes, the ioctl's number says %d", got, ioctlNSM>>16&0x3fff)
	}
}

func TestOpenSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, path, want string
		is               error
	}{
		{name: "no device", path: file + "-not", want: "only inside a Nitro Enclave", is: fs.ErrNotExist},
		{name: "a file", path: file, want: "not a character device"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m, err := openDevice(tt.path)
			if err == nil {
				m.Close()
				t.Fatal("opened")
			}
			if !strings.Contains(err.Error(), tt.want) || tt.is != nil && !errors.Is(err, tt.is) {
				t.Fatalf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestSendToAnotherDevice(t *testing.T) {
	t.Parallel()
	m, err := openDevice(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Send(t.Context(), nil); !errors.Is(err, ErrInput) {
		t.Errorf("empty request: got %v, want %v", err, ErrInput)
	}
	if _, err := m.Send(t.Context(), []byte("x")); !errors.Is(err, syscall.ENOTTY) {
		t.Errorf("got %v, want %v", err, syscall.ENOTTY)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Send(t.Context(), []byte("x")); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Close: got %v, want %v", err, os.ErrClosed)
	}
}
