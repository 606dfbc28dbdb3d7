package egress

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/corridor-enclave/corridor/tapstack/pacing"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestNamesDoNotLeadBack: on the link it is the host who resolves names.
func TestNamesDoNotLeadBack(t *testing.T) {
	t.Parallel()
	for address, refused := range map[string]bool{
		"127.0.0.1:8080": true, "[::1]:8080": true, "[::ffff:127.0.0.1]:8080": true, "0.0.0.0:80": true, "[::]:80": true,
		"169.254.169.254:80": true, "[fe80::1]:80": true, "224.0.0.1:80": true, "nonsense": true,
		"192.168.127.254:443": false, "198.41.0.4:443": false, "[2606:4700::1]:443": false,
	} {
		if err := refuseOwn(t.Context(), "tcp", address, nil); (err != nil) != refused {
			t.Errorf("%s: %v", address, err)
		}
	}
}

// TestNamesDoNotLeadToOwnAddresses: what listens on all addresses is not for those
// who come from inside.
func TestNamesDoNotLeadToOwnAddresses(t *testing.T) {
	t.Parallel()
	own, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range own {
		ip := a.(*net.IPNet).IP
		if err := refuseOwn(t.Context(), "tcp", net.JoinHostPort(ip.String(), "443"), nil); !errors.Is(err, ErrDenied) {
			t.Errorf("%s: %v", ip, err)
		}
	}
}

func TestSilentClientsAreGivenUp(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		p    protocol
		says string
	}{
		{"SOCKS", socks{}, ""}, {"half a SOCKS greeting", socks{}, "\x05"}, {"CONNECT", connect{}, ""}, {"half a CONNECT", connect{}, "CONNECT a:1 HTTP/1.1\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				inside, client := net.Pipe()
				defer client.Close()
				defer inside.Close()
				go func() { _, _ = client.Write([]byte(tt.says)) }()
				log := slog.New(slog.DiscardHandler)
				s := newServer("test", nil, tt.p, New(Config{Log: log}), log)
				begin := time.Now()
				if _, err := s.open(t.Context(), inside); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begin) != requestTimeout {
					t.Errorf("%v after %v", err, time.Since(begin))
				}
			})
		})
	}
}

// A failing listener has no room for a connection, and then is closed.
type failing struct {
	net.Listener
	errs []error
}

func (l *failing) Accept() (net.Conn, error) {
	err := l.errs[0]
	l.errs = l.errs[1:]
	return nil, err
}
func (l *failing) Close() error   { return nil }
func (l *failing) Addr() net.Addr { return address("nowhere:1") }

func TestServerOutlivesAFullTable(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := slog.New(slog.DiscardHandler)
		l := &failing{errs: []error{errors.New("too many open files"), errors.New("too many open files"), net.ErrClosed}}
		begin := time.Now()
		if err := newServer("test", l, socks{}, New(Config{Log: log}), log).Run(t.Context()); !errors.Is(err, net.ErrClosed) || time.Since(begin) != 2*pacing.Accept {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
	})
}
