package loadgen

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"
)

// A Flow is what iperf3 is asked for: Streams connections to a server of its own
// at Address, which carry as much as they can for Duration.
type Flow struct {
	Address  string
	Streams  int
	Duration time.Duration // in whole seconds
	Reverse  bool          // the server sends
}

// A Transfer is what arrived.
type Transfer struct {
	Bytes       int64
	Duration    time.Duration
	Retransmits int64 // of the sender's TCP
}

// IPerf3 runs iperf3, found at path, against a server that runs already.
func IPerf3(ctx context.Context, path string, f Flow) (Transfer, error) {
	host, port, err := net.SplitHostPort(f.Address)
	if err != nil {
		return Transfer{}, fmt.Errorf("loadgen: %w", err)
	}
	if f.Streams < 1 || f.Duration < time.Second || f.Duration%time.Second != 0 {
		return Transfer{}, fmt.Errorf("loadgen: %d streams for %v: want one at least, for whole seconds", f.Streams, f.Duration)
	}
	args := []string{
		"--client", host, "--port", port, "--json", "--connect-timeout", "5000",
		"--parallel", strconv.Itoa(f.Streams), "--time", strconv.Itoa(int(f.Duration / time.Second)),
	}
	if f.Reverse {
		args = append(args, "--reverse")
	}
	out, err := run(ctx, path, args...)
	if err != nil && len(out) == 0 {
		return Transfer{}, err
	}
	return ParseIPerf3(out) // which says why, if it ended with a failure
}

// ParseIPerf3 reads what `iperf3 --json` prints. A server that is busy with another
// client is an error, as is a transfer of nothing.
func ParseIPerf3(out []byte) (Transfer, error) {
	var report struct {
		Error string `json:"error"`
		End   struct {
			Sent     *struct{ Retransmits int64 } `json:"sum_sent"`
			Received *struct {
				Seconds float64 `json:"seconds"`
				Bytes   int64   `json:"bytes"`
			} `json:"sum_received"`
		} `json:"end"`
	}
	if err := json.Unmarshal(out, &report); err != nil {
		return Transfer{}, fmt.Errorf("loadgen: iperf3's report: %w", err)
	}
	switch {
	case report.Error != "":
		return Transfer{}, fmt.Errorf("loadgen: iperf3: %s", report.Error)
	case report.End.Received == nil || report.End.Sent == nil:
		return Transfer{}, errors.New("loadgen: iperf3's report: no sums")
	}
	t := Transfer{
		Bytes:       report.End.Received.Bytes,
		Duration:    time.Duration(report.End.Received.Seconds * float64(time.Second)),
		Retransmits: report.End.Sent.Retransmits,
	}
	if t.Bytes <= 0 || t.Duration <= 0 || t.Retransmits < 0 {
		return Transfer{}, fmt.Errorf("loadgen: iperf3's report: %d bytes in %v", t.Bytes, t.Duration)
	}
	return t, nil
}
