package report

import "fmt"

// A Metric is what a value measures. The set is closed: readers know the unit and
// the better direction of each.
type Metric string

// The metrics. "Operation" is what the load's Kind says.
const (
	Rate       Metric = "rate"        // operations a second
	P50        Metric = "p50"         // of the latency, in µs
	P90        Metric = "p90"         // likewise
	P99        Metric = "p99"         // likewise
	CPU        Metric = "cpu"         // µs of the subject, user and system, per operation
	User       Metric = "user"        // µs of the subject in user mode, per operation
	System     Metric = "system"      // µs of the subject in the kernel, per operation
	AppCPU     Metric = "app_cpu"     // µs of the app, per operation
	Switches   Metric = "switches"    // context switches of the subject, per operation
	OutsideCPU Metric = "outside_cpu" // of CPU, what is used outside of the enclave
	Syscalls   Metric = "syscalls"    // all system calls of the subject, per operation
	Copied     Metric = "copied"      // bytes that the subject's Calls copy, per operation
	Allocs     Metric = "allocs"      // objects that the subject allocates, per operation
	AllocBytes Metric = "alloc_bytes" // bytes of them, per operation
	Calls      Metric = "calls"       // read(2) and write(2) of the subject, per operation
	RSS        Metric = "rss"         // bytes of memory of the subject
	Throughput Metric = "throughput"  // Gbit/s, of bulk
	Outside    Metric = "outside"     // bytes by which the subject's processes outside of the enclave grew, per operation
	Inside     Metric = "inside"      // likewise, inside
)

// A unit is what readers have to know of a metric.
type unit struct {
	name   string // as benchstat reads it
	higher bool   // is better
	// floor is the smallest relative change worth telling: below it runs of the
	// same binary at different times differ too, because the machine drifts.
	floor float64
}

func (m Metric) unit() (unit, bool) {
	u, ok := map[Metric]unit{
		Rate:       {"op/s", true, 0.15},
		P50:        {"p50-us", false, 0.15},
		P90:        {"p90-us", false, 0.20},
		P99:        {"p99-us", false, 0.25},
		CPU:        {"cpu-us/op", false, 0.08},
		User:       {"user-us/op", false, 0.10},
		System:     {"sys-us/op", false, 0.10},
		AppCPU:     {"app-us/op", false, 0.10},
		Switches:   {"ctxsw/op", false, 0.15},
		OutsideCPU: {"outside-cpu-us/op", false, 0.08},
		Syscalls:   {"syscalls/op", false, 0.05},
		Copied:     {"copied-bytes/op", false, 0.05},
		Allocs:     {"allocs/op", false, 0.03},
		AllocBytes: {"B/op", false, 0.05},
		Calls:      {"calls/op", false, 0.05},
		RSS:        {"rss-bytes", false, 0.10},
		Throughput: {"Gbit/s", true, 0.15},
		Outside:    {"outside-bytes/op", false, 0.10},
		Inside:     {"inside-bytes/op", false, 0.10},
	}[m]
	return u, ok
}

// Metrics returns all of them in the order of tables.
func Metrics() []Metric {
	return []Metric{Rate, Throughput, P50, P90, P99, CPU, OutsideCPU, User, System, AppCPU, Switches, Syscalls, Calls, Copied, Allocs, AllocBytes, RSS, Outside, Inside}
}

// Unit returns the metric's unit as benchstat reads it, with "op" for operation.
func (m Metric) Unit() string {
	u, _ := m.unit()
	return u.name
}

// HigherIsBetter says in which direction the metric improves.
func (m Metric) HigherIsBetter() bool {
	u, _ := m.unit()
	return u.higher
}

// Floor returns the smallest relative change that is worth telling.
func (m Metric) Floor() float64 {
	u, _ := m.unit()
	return u.floor
}

// UnmarshalText refuses a metric that this version does not know: what it means
// cannot be guessed.
func (m *Metric) UnmarshalText(text []byte) error {
	if _, ok := Metric(text).unit(); !ok {
		return fmt.Errorf("report: %q is no metric of schema %d", text, Schema)
	}
	*m = Metric(text)
	return nil
}
