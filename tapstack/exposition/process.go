package exposition

import (
	"net"
	"net/http"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// A Process is what this process takes, now or since its start.
type Process struct {
	Goroutines      uint64
	HeapBytes       uint64        // live objects, and dead ones that are not swept yet
	RuntimeBytes    uint64        // all that the Go runtime has mapped
	AllocatedBytes  uint64        // ever
	Allocations     uint64        // ever
	Collections     uint64        // of the heap
	CPU             time.Duration // user and system; 0 where the system does not say
	ResidentBytes   uint64        // 0 where the system does not say
	OpenDescriptors uint64        // 0 where the system does not say
}

// ReadProcess measures this process. It stops nothing and takes microseconds.
func ReadProcess() Process {
	samples := []metrics.Sample{
		{Name: "/sched/goroutines:goroutines"},
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/total:bytes"},
		{Name: "/gc/heap/allocs:bytes"},
		{Name: "/gc/heap/allocs:objects"},
		{Name: "/gc/cycles/total:gc-cycles"},
		{Name: "/gc/heap/tiny/allocs:objects"}, // which share blocks that are counted as one
	}
	metrics.Read(samples)
	var v [7]uint64
	for i, s := range samples {
		if s.Value.Kind() == metrics.KindUint64 { // the runtime may drop a name some day
			v[i] = s.Value.Uint64()
		}
	}
	p := Process{
		Goroutines: v[0], HeapBytes: v[1], RuntimeBytes: v[2],
		AllocatedBytes: v[3], Allocations: v[4] + v[6], Collections: v[5],
	}
	p.askSystem()
	return p
}

// Write adds the process and the build to a page. The names of the first three
// are those that Prometheus' own clients give them.
func (p Process) Write(page *Page, labels ...Label) {
	page.Counter("process_cpu_seconds_total", "User and system time.", p.CPU.Seconds(), labels...)
	page.Gauge("process_resident_memory_bytes", "Memory in RAM.", float64(p.ResidentBytes), labels...)
	page.Gauge("process_open_fds", "Open file descriptors.", float64(p.OpenDescriptors), labels...)
	page.Gauge("go_goroutines", "Goroutines.", float64(p.Goroutines), labels...)
	page.Gauge("corridor_process_heap_bytes", "Objects on the heap, those included that are dead and not swept yet.", float64(p.HeapBytes), labels...)
	page.Gauge("corridor_process_runtime_bytes", "Memory that the Go runtime has mapped.", float64(p.RuntimeBytes), labels...)
	page.Counter("corridor_process_allocated_bytes_total", "Bytes ever allocated on the heap.", float64(p.AllocatedBytes), labels...)
	page.Counter("corridor_process_allocations_total", "Objects ever allocated on the heap.", float64(p.Allocations), labels...)
	page.Counter("corridor_process_collections_total", "Garbage collections.", float64(p.Collections), labels...)
}

// ServeProcess tells what the process takes, by HTTP on a unix socket, until stop is
// called, and what else is to be told. Without a socket it does nothing. Its error is that of listening.
func ServeProcess(socket string, more ...func(*Page)) (stop func(), err error) {
	if socket == "" {
		return func() {}, nil
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return nil, err
	}
	srv := &http.Server{Handler: ProcessHandler(more...), ReadHeaderTimeout: 10 * time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l) // ErrServerClosed, from stop
	}()
	return func() { srv.Close(); <-done }, nil
}

// ProcessHandler answers with a page of this process, and what more adds to it.
func ProcessHandler(more ...func(*Page)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		page := NewPage()
		ReadProcess().Write(page)
		for _, add := range more {
			add(page)
		}
		w.Header().Set("Content-Type", ContentType)
		_, _ = page.WriteTo(w) // whoever asked may be gone
	})
}

// WriteBuild adds what this program was built from, as labels of a gauge that is
// always 1.
func WriteBuild(page *Page, labels ...Label) {
	version, revision, compiler := "unknown", "unknown", "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		version, compiler = info.Main.Version, info.GoVersion
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				revision = s.Value
			}
		}
	}
	page.Gauge("corridor_build_info", "What this program was built from.", 1,
		append(labels, With("version", version), With("revision", revision), With("go", compiler))...)
}
