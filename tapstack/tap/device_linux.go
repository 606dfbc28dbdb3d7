package tap

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/corridor-enclave/corridor/tapstack"
)

const devicePath = "/dev/net/tun"

// A Device is an open TAP device. It implements tapstack.Device: one goroutine
// may read while another writes, and Close ends both.
type Device struct {
	name      string
	file      *os.File
	control   int // a socket of the namespace that the device was opened in
	lastMTU   atomic.Int64
	closeOnce sync.Once
	closeErr  error
	mu        sync.RWMutex // held to use control, which Close closes
	closed    bool         // guarded by mu
}

func open(name string) (*Device, error) {
	fd, err := unix.Open(devicePath, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, explainOpen(name, os.NewSyscallError("open "+devicePath, err))
	}
	// Attach before os.NewFile: a descriptor that the poller learned of before
	// TUNSETIFF stays in an error state.
	if err := attach(fd, name); err != nil {
		unix.Close(fd)
		return nil, explainOpen(name, err)
	}
	control, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		unix.Close(fd)
		return nil, explainOpen(name, os.NewSyscallError("socket", err))
	}
	d := &Device{name: name, file: os.NewFile(uintptr(fd), devicePath), control: control}
	if _, err := d.queryMTU(); err != nil {
		return nil, errors.Join(explainOpen(name, err), d.Close())
	}
	return d, nil
}

// attach makes fd the device named name: whole Ethernet frames without a packet
// information header in front.
func attach(fd int, name string) error {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	return os.NewSyscallError("TUNSETIFF", unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr))
}

// explainOpen says what an error of opening means, and what to do.
func explainOpen(name string, err error) error {
	hint := ""
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		hint = "this machine has no TAP devices (load the tun module, or run without the link): "
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		hint = "not permitted (run with CAP_NET_ADMIN, and with access to " + devicePath + "): "
	case errors.Is(err, unix.EBUSY):
		hint = "another process has it (stop that, or choose another name): "
	case errors.Is(err, unix.EINVAL):
		hint = "a device of that name exists and is no TAP device like ours (choose another name): "
	}
	return fmt.Errorf("tap: open %s: %s%w", name, hint, err)
}

// Name returns the device's name.
func (d *Device) Name() string { return d.name }

// ReadFrame reads one frame into buf. A frame that is longer than buf is cut by
// the kernel; a buffer of MTU+15 bytes shows it.
func (d *Device) ReadFrame(buf []byte) (int, error) { return d.file.Read(buf) }

// WriteFrame hands one frame to the kernel. The error for a frame that the
// kernel refuses is EINVAL, and EIO while the device is down.
func (d *Device) WriteFrame(frame []byte) error {
	_, err := d.file.Write(frame)
	return err
}

// MTU asks the kernel for the device's MTU, which Configure changes. Of a
// device that is closed or deleted it is the last one known.
func (d *Device) MTU() int {
	if mtu, err := d.queryMTU(); err == nil {
		return mtu
	}
	return int(d.lastMTU.Load())
}

func (d *Device) queryMTU() (int, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.closed {
		return 0, os.ErrClosed
	}
	ifr, err := unix.NewIfreq(d.name)
	if err != nil {
		return 0, err
	}
	if err := unix.IoctlIfreq(d.control, unix.SIOCGIFMTU, ifr); err != nil {
		return 0, os.NewSyscallError("SIOCGIFMTU", err)
	}
	mtu := int(ifr.Uint32())
	d.lastMTU.Store(int64(mtu))
	return mtu, nil
}

// Close closes the device and wakes those who read or write it. It may be
// repeated.
func (d *Device) Close() error {
	d.closeOnce.Do(func() {
		d.mu.Lock()
		d.closed = true
		d.mu.Unlock()
		d.closeErr = errors.Join(d.file.Close(), os.NewSyscallError("close", unix.Close(d.control)))
	})
	return d.closeErr
}

var _ tapstack.Device = (*Device)(nil)
