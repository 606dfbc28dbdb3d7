package report

// A Curve is how one variant of a hop behaves while one thing grows.
type Curve struct {
	Hop     string  `json:"hop"`
	Variant string  `json:"variant"`
	Load    Load    `json:"load"` // what is the same at all points
	Axis    Axis    `json:"axis"`
	Points  []Point `json:"points"` // with rising X

	// Knee is the X with the largest rate whose p99 is still within the objective,
	// Peak that with the largest rate; nil if not looked for or not found.
	Knee *float64 `json:"knee,omitempty"`
	Peak *float64 `json:"peak,omitempty"`
	Fit  *USL     `json:"usl,omitempty"`
	Stop string   `json:"stop,omitempty"` // why the search went no further
}

// An Axis is what grows along a curve.
type Axis string

// The axes.
const (
	ByConnections Axis = "connections"
	ByOffered     Axis = "offered_per_second"
	ByBody        Axis = "body_bytes"
	ByEnclaves    Axis = "enclaves"
)

// A Point is one stage of a curve.
type Point struct {
	X       float64  `json:"x"`
	Rate    float64  `json:"rate"` // successful operations a second
	P50     float64  `json:"p50_us"`
	P99     float64  `json:"p99_us"`
	Errors  int64    `json:"errors"` // operations that did not succeed
	Latency *Latency `json:"latency,omitempty"`
}

// A USL is a fit of the Universal Scalability Law (Gunther): the rate at n is
// Lambda·n / (1 + Alpha·(n-1) + Beta·n·(n-1)).
type USL struct {
	Lambda   float64 `json:"lambda"` // rate at n = 1
	Alpha    float64 `json:"alpha"`  // contention: the share that cannot be done in parallel
	Beta     float64 `json:"beta"`   // coherence: what each pair costs
	RSquared float64 `json:"r_squared"`
}

// A Causal answer is what would be gained if one hop of a way were faster.
type Causal struct {
	Hop string `json:"hop"` // the hop that would be faster
	// Speedup is the share, 0 to 1, by which it would be faster.
	Speedup float64 `json:"speedup"`
	// Rate and P99 are the relative changes of the whole: +0.1 is a tenth more.
	// Each comes with the interval that holds it with 95 %.
	Rate Interval `json:"rate"`
	P99  Interval `json:"p99"`
}

// An Interval is an estimate and where it may lie.
type Interval struct {
	Value float64 `json:"value"`
	Low   float64 `json:"low"`
	High  float64 `json:"high"`
}
