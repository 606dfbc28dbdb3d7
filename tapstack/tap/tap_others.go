//go:build !linux

package tap

import (
	"errors"
	"fmt"
	"net"
	"runtime"

	"github.com/corridor-enclave/corridor/tapstack"
)

// A Device is an open TAP device. There is none on this system.
type Device struct{}

func unsupported(doing string) error {
	return fmt.Errorf("tap: %s on %s: %w", doing, runtime.GOOS, errors.ErrUnsupported)
}

func open(string, Options) (*Device, error) { return nil, unsupported("open") }
func configure(Settings) error              { return unsupported("configure") }
func loopbackUp() error                     { return unsupported("bring the loopback up") }
func hasIPv6() bool                         { return false }
func disableIPv6(string) error              { return unsupported("switch IPv6 off") }

func enableIPv6(string, net.HardwareAddr) error { return unsupported("switch IPv6 on") }

func (*Device) addQueue(Options) error { return unsupported("open") }

// Further returns nothing.
func (*Device) Further() []tapstack.Device { return nil }

// Name returns nothing.
func (*Device) Name() string { return "" }

// ReadFrames fails.
func (*Device) ReadFrames(*tapstack.Batch) error { return unsupported("read") }

// WriteFrame fails.
func (*Device) WriteFrame([]byte) error { return unsupported("write") }

// Offloads returns false.
func (*Device) Offloads() bool { return false }

// MTU returns 0.
func (*Device) MTU() int { return 0 }

// Close fails.
func (*Device) Close() error { return unsupported("close") }
