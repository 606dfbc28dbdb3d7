package impair

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Limits of a profile: beyond them a mistake is likelier than an intention.
const (
	maxDelay     = time.Minute
	maxQueue     = 1 << 30
	defaultQueue = 256 << 10
)

// A Profile says how a line impairs one direction. The zero value does nothing.
type Profile struct {
	Delay  time.Duration // from one end to the other
	Jitter time.Duration // added to Delay: 0 to Jitter, uniformly; the order stays
	Rate   int64         // bytes a second; 0 means as fast as it goes
	Queue  int64         // bytes that may wait for Rate; 0 means 256 KiB

	// Of frames alone, each the share of them, from 0 to 1:
	Loss      float64 // never arrive
	Duplicate float64 // arrive twice
	Reorder   float64 // are not delayed, and so overtake those before
}

// Parse reads a profile as users write it: "delay=20ms,jitter=2ms,loss=0.1%,
// duplicate=1%,reorder=1%,rate=10Mbit,queue=64KiB", each part at most once. The
// empty text is the zero profile.
func Parse(text string) (Profile, error) {
	var p Profile
	if text == "" {
		return p, nil
	}
	seen := map[string]bool{}
	var errs []error
	for part := range strings.SplitSeq(text, ",") {
		name, value, _ := strings.Cut(part, "=")
		if seen[name] {
			errs = append(errs, fmt.Errorf("%s: more than once", name))
		}
		seen[name] = true
		if err := p.set(name, value); err != nil {
			errs = append(errs, fmt.Errorf("%q: %w", part, err))
		}
	}
	if p.Reorder > 0 && p.Delay == 0 {
		errs = append(errs, errors.New("reorder: without a delay nothing can be overtaken"))
	}
	if p.Queue > 0 && p.Rate == 0 {
		errs = append(errs, errors.New("queue: without a rate nothing waits"))
	}
	if err := errors.Join(errs...); err != nil {
		return Profile{}, err
	}
	return p, nil
}

func (p *Profile) set(name, value string) (err error) {
	switch name {
	case "delay":
		p.Delay, err = parseDelay(value)
	case "jitter":
		p.Jitter, err = parseDelay(value)
	case "rate":
		p.Rate, err = parseRate(value)
	case "queue":
		p.Queue, err = parseBytes(value)
	case "loss":
		p.Loss, err = parseShare(value)
	case "duplicate":
		p.Duplicate, err = parseShare(value)
	case "reorder":
		p.Reorder, err = parseShare(value)
	default:
		err = errors.New("none of delay, jitter, rate, queue, loss, duplicate, reorder")
	}
	return err
}

func parseDelay(v string) (time.Duration, error) {
	d, err := time.ParseDuration(v)
	if err == nil && (d < 0 || d > maxDelay) {
		err = fmt.Errorf("outside of 0 to %v", maxDelay)
	}
	return d, err
}

func parseShare(v string) (float64, error) {
	number, percent := strings.CutSuffix(v, "%")
	share, err := strconv.ParseFloat(number, 64)
	if percent {
		share /= 100
	}
	if err != nil || !(share >= 0 && share <= 1) {
		return 0, errors.New("not a share: 0 to 1, or 0% to 100%")
	}
	return share, nil
}

// parseRate reads bits a second, as lines are sold, into bytes a second.
func parseRate(v string) (int64, error) {
	number, unit := splitUnit(v)
	scale, ok := map[string]float64{"bit": 1, "kbit": 1e3, "Mbit": 1e6, "Gbit": 1e9}[unit]
	n, err := strconv.ParseFloat(number, 64)
	rate := n * scale / 8
	if !ok || err != nil || !(rate >= 1 && rate <= 1e12) {
		return 0, errors.New("not a rate such as 800kbit, 10Mbit or 1Gbit (a second)")
	}
	return int64(rate), nil
}

func parseBytes(v string) (int64, error) {
	number, unit := splitUnit(v)
	scale, ok := map[string]int64{"B": 1, "KiB": 1 << 10, "MiB": 1 << 20}[unit]
	n, err := strconv.ParseInt(number, 10, 32)
	if !ok || err != nil || n < 1 || n*scale > maxQueue {
		return 0, errors.New("not a size such as 9000B, 64KiB or 1MiB")
	}
	return n * scale, nil
}

func splitUnit(v string) (number, unit string) {
	number = strings.TrimRight(v, "bBGKMiknt")
	return number, v[len(number):]
}

// forFrames names what only frames can suffer.
func (p Profile) forFrames() bool { return p.Loss > 0 || p.Duplicate > 0 || p.Reorder > 0 }

// queue is how many bytes may wait for the rate.
func (p Profile) queue() int64 {
	if p.Queue == 0 {
		return defaultQueue
	}
	return p.Queue
}
