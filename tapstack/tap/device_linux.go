package tap

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/corridor-enclave/corridor/tapstack"
	"github.com/corridor-enclave/corridor/tapstack/nonblock"
)

const devicePath = "/dev/net/tun"

// A Device is an open TAP device. It implements tapstack.Device: one goroutine
// may read while another writes, and Close ends both.
type Device struct {
	name      string
	offloads  bool
	file      *os.File
	raw       syscall.RawConn // of file
	reading   reading
	writing   writing
	further   []*Device
	control   int // a socket of the namespace that the device was opened in
	lastMTU   atomic.Int64
	closeOnce sync.Once
	closeErr  error
	mu        sync.RWMutex // held to use control, which Close closes
	closed    bool         // guarded by mu
}

func open(name string, o Options) (*Device, error) {
	fd, err := unix.Open(devicePath, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, explainOpen(name, os.NewSyscallError("open "+devicePath, err))
	}
	// Attach before os.NewFile: a descriptor that the poller learned of before
	// TUNSETIFF stays in an error state.
	if err := attach(fd, name, o); err != nil {
		unix.Close(fd)
		return nil, explainOpen(name, err)
	}
	control, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		unix.Close(fd)
		return nil, explainOpen(name, os.NewSyscallError("socket", err))
	}
	d := &Device{name: name, offloads: !o.NoOffload, file: os.NewFile(uintptr(fd), devicePath), control: control}
	d.reading.read, d.writing.write = d.reading.once, d.writing.once
	if d.raw, err = d.file.SyscallConn(); err == nil {
		_, err = d.queryMTU()
	}
	if err != nil {
		return nil, errors.Join(explainOpen(name, err), d.Close())
	}
	return d, nil
}

// attach makes fd the device named name: whole Ethernet frames, without a packet
// information header but with a virtio-net one.
func attach(fd int, name string, o Options) error {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	flags := uint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if o.Queues > 1 {
		flags |= unix.IFF_MULTI_QUEUE
	}
	ifr.SetUint16(flags)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		return os.NewSyscallError("TUNSETIFF", err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, tapstack.OffloadHeader); err != nil {
		return os.NewSyscallError("TUNSETVNETHDRSZ", err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETLE, 1); err != nil {
		return os.NewSyscallError("TUNSETVNETLE", err)
	}
	// What the kernel may leave to us. What we may leave to the kernel needs no
	// asking: it takes every header that it understands.
	leave := unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6
	if o.NoOffload {
		leave = 0
	}
	return os.NewSyscallError("TUNSETOFFLOAD", unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, leave))
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

// addQueue opens another queue of the device.
func (d *Device) addQueue(o Options) error {
	q, err := open(d.name, o)
	if err == nil {
		d.further = append(d.further, q)
	}
	return err
}

// Further returns the other queues of the device. Each may be read and written
// beside the others.
func (d *Device) Further() []tapstack.Device {
	var queues []tapstack.Device
	for _, q := range d.further {
		queues = append(queues, q)
	}
	return queues
}

// Name returns the device's name.
func (d *Device) Name() string { return d.name }

// Offloads reports whether frames may have work left in them.
func (d *Device) Offloads() bool { return d.offloads }

// ReadFrames waits for a frame, then reads what is ready into b.
func (d *Device) ReadFrames(b *tapstack.Batch) error {
	d.reading.batch, d.reading.count, d.reading.err = b, 0, nil
	err := d.raw.Read(d.reading.read)
	if err == nil {
		err = d.reading.err
	}
	if d.reading.count > 0 {
		return nil // an error comes again with the next call
	}
	if err != nil && d.isClosed() {
		return os.ErrClosed // the poller's error does not say so
	}
	return err
}

// reading is what one call of ReadFrames works on. Only the one reader of the
// device touches it; as a closure of the call it would be an allocation.
type reading struct {
	batch *tapstack.Batch
	count int
	err   error
	read  func(fd uintptr) (done bool)
}

// once reads until nothing is ready or the batch is full. It reports whether the
// call is done; if not, the poller waits for the device and calls it again.
func (r *reading) once(fd uintptr) bool {
	for {
		room := r.batch.Next()
		if room == nil {
			return true
		}
		n, err := nonblock.Read(int(fd), room)
		r.batch.Commit(n)
		switch {
		case err == unix.EAGAIN:
			return r.count > 0
		case err != nil:
			r.err = os.NewSyscallError("read", err)
			return true
		default:
			r.count++
		}
	}
}

// WriteFrame hands one frame, with its virtio-net header, to the kernel. The error for a frame that the
// kernel refuses is EINVAL, and EIO while the device is down.
func (d *Device) WriteFrame(frame []byte) error {
	d.writing.frame = frame
	err := d.raw.Write(d.writing.write)
	d.writing.frame = nil
	if err == nil {
		err = d.writing.err
	}
	if err != nil && d.isClosed() {
		return os.ErrClosed // the poller's error does not say so
	}
	return err
}

// writing is what one call of WriteFrame works on, as reading is for ReadFrames.
type writing struct {
	frame []byte
	err   error
	write func(fd uintptr) (done bool)
}

// once hands over the frame, which the kernel takes as a whole or not at all.
func (w *writing) once(fd uintptr) bool {
	_, w.err = nonblock.Write(int(fd), w.frame)
	return w.err != unix.EAGAIN
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

func (d *Device) isClosed() bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.closed
}

// Close closes the device, with its further queues, and wakes those who read or write it. It may be
// repeated.
func (d *Device) Close() error {
	d.closeOnce.Do(func() {
		d.mu.Lock()
		d.closed = true
		d.mu.Unlock()
		d.closeErr = errors.Join(d.file.Close(), os.NewSyscallError("close", unix.Close(d.control)))
		for _, q := range d.further {
			d.closeErr = errors.Join(d.closeErr, q.Close())
		}
	})
	return d.closeErr
}

var _ tapstack.Device = (*Device)(nil)
