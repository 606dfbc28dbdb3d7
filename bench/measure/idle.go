package measure

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/corridor-enclave/corridor/bench/ledger"
	"github.com/corridor-enclave/corridor/bench/report"
)

// openers connect at the same time.
const openers = 16

// hold opens connections, has one request answered on each, and then looks at what
// they cost those that carry them. They are closed when it returns.
func hold(ctx context.Context, c cell, s *report.Sample) error {
	n := c.result.Load.Connections
	before, err := ledger.Take(ctx, c.running.Accounts)
	if err != nil {
		return err
	}
	var h held
	defer h.close()
	if err := h.open(ctx, c.running.URL, n); err != nil {
		return err
	}
	after, err := ledger.Take(ctx, c.running.Accounts)
	if err != nil {
		return err
	}
	s.Sent, s.OK = int64(n), int64(n)
	s.Processes, s.Foreign = after.Since(before)
	s.Values, err = grown(s.Processes, n)
	return err
}

// grown divides by what the subject's processes grew.
func grown(processes []report.Process, connections int) (map[report.Metric]float64, error) {
	values := map[report.Metric]float64{}
	for _, p := range processes {
		if p.Role != report.Subject {
			continue
		}
		m := report.Outside
		if p.Inside {
			m = report.Inside
		}
		values[m] += float64(p.GrownBytes) / float64(connections)
	}
	for m, v := range values {
		if v < 0 {
			return nil, fmt.Errorf("measure: memory %s shrank by %.0f bytes a connection: something else was freed meanwhile", m, -v)
		}
	}
	return values, nil
}

// held are connections that stay open.
type held struct {
	mu    sync.Mutex
	conns []net.Conn
}

func (h *held) open(ctx context.Context, target string, n int) error {
	u, err := url.Parse(target)
	if err != nil {
		return err
	}
	var left atomic.Int64
	left.Store(int64(n))
	g, ctx := errgroup.WithContext(ctx)
	for range openers {
		g.Go(func() error {
			for left.Add(-1) >= 0 {
				conn, err := askOnce(ctx, u)
				if err != nil {
					return fmt.Errorf("measure: hold a connection: %w", err)
				}
				h.mu.Lock()
				h.conns = append(h.conns, conn)
				h.mu.Unlock()
			}
			return nil
		})
	}
	return g.Wait()
}

// askOnce has one request answered on a connection of its own, and leaves that open.
func askOnce(ctx context.Context, u *url.URL) (_ net.Conn, err error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, conn.Close())
		}
	}()
	if err := conn.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", u.RequestURI(), u.Host); err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, errors.New(resp.Status)
	}
	return conn, nil
}

// close resets them: thousands that end in order would leave as many ports that
// nobody may use for a minute.
func (h *held) close() {
	for _, conn := range h.conns {
		err := conn.(*net.TCPConn).SetLinger(0)
		_ = errors.Join(err, conn.Close()) // what cannot be closed is closed already
	}
}
