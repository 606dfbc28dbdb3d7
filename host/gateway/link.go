package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"github.com/corridor-enclave/corridor/tapstack"
	"github.com/corridor-enclave/corridor/tapstack/netstack"
	"github.com/corridor-enclave/corridor/tapstack/vsockconn"
)

const (
	// headerTimeout is how long a peer may take for a request that opens a link.
	headerTimeout = 5 * time.Second
	maxHeader     = 8 << 10
	// maxLinksPerCID bounds the connections that one enclave keeps open to the
	// link's port. One link is in use, of as many as it has lanes; a second replaces it.
	maxLinksPerCID = 4 * tapstack.MaxLanes
)

// Run accepts links on l until ctx ends, then ends all links and flows, and
// returns nil when they are gone. It closes l.
//
// All that is served there is the POST that opens a link. gvproxy serves its
// whole API on this port; here it is for the host's operator, on the control
// address, because whoever may ask for ports of the host controls what the
// host's clients reach.
func (g *Gateway) Run(ctx context.Context, l net.Listener) error {
	defer g.close()
	mux := http.NewServeMux()
	mux.HandleFunc(tapstack.ConnectPath, func(w http.ResponseWriter, r *http.Request) { g.connect(ctx, w, r, g.takePlain) })
	mux.HandleFunc(tapstack.UpgradePath, func(w http.ResponseWriter, r *http.Request) { g.connect(ctx, w, r, g.takeExtended) })
	srv := &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       headerTimeout,
		WriteTimeout:      headerTimeout,
		IdleTimeout:       headerTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(g.log.Handler(), slog.LevelDebug),
	}
	defer context.AfterFunc(ctx, func() { srv.Close() })()
	g.log.Info("listening", "part", "link", "addr", l.Addr().String())
	err := srv.Serve(&perCIDListener{Listener: l, counts: map[vsockconn.CID]int{}})
	if ctx.Err() != nil || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("gateway: accept links: %w", err)
}

// A takeFunc takes over the stream of one request, and says who is at its end.
type takeFunc func(http.ResponseWriter, *http.Request) (*opening, error)

// An opening is a link that an enclave opens, as far as it is there.
type opening struct {
	conn net.Conn
	peer netstack.Peer
	name string // of the link that conn belongs to; empty if it is the only lane
	more int    // lanes that belong to it and are still to come
}

// takePlain takes the link that stock enclaves open.
func (g *Gateway) takePlain(w http.ResponseWriter, r *http.Request) (*opening, error) {
	peer := netstack.Peer{Framing: tapstack.Plain, Takes: tapstack.PlainPeer()}
	peer.Takes.MaxFrame = g.config.PlainMaxFrame
	peer.Takes.MTU = g.config.MTU // both ends were told the same, or neither
	conn, err := tapstack.Hijack(w, r)
	return &opening{conn: conn, peer: peer}, err
}

// takeExtended takes the link that enclaves of ours open, or a further lane of one.
func (g *Gateway) takeExtended(w http.ResponseWriter, r *http.Request) (*opening, error) {
	own := tapstack.Capabilities{Offload: true, Ping: true, IPv6: g.hasIPv6(), MaxFrame: tapstack.MaxFrame, MTU: g.config.MTU}
	o := &opening{}
	conn, takes, err := tapstack.Upgrade(w, r, func(peer tapstack.Capabilities) (tapstack.Capabilities, error) {
		return g.lanes.answer(o, own, peer)
	})
	if err != nil {
		g.lanes.forget(o)
		return nil, err
	}
	takes.IPv6 = takes.IPv6 && own.IPv6 && takes.MTU >= minIPv6MTU
	takes.Link = "" // from here on it only could be logged
	o.conn, o.peer = conn, netstack.Peer{Framing: tapstack.Extended, Takes: takes}
	return o, nil
}

// connect takes over the stream of one request and carries the link.
func (g *Gateway) connect(ctx context.Context, w http.ResponseWriter, r *http.Request, take takeFunc) {
	o, err := take(w, r)
	if err != nil {
		g.log.Warn("request opens no link", "peer", r.RemoteAddr, "err", err)
		return
	}
	cid, ok := vsockconn.PeerCID(o.conn)
	if !ok {
		g.lanes.forget(o)
		o.conn.Close()
		g.log.Error("link refused: its transport names no CID", "peer", r.RemoteAddr)
		return
	}
	conns, err := g.lanes.gather(ctx, o, cid)
	if err != nil {
		g.log.Warn("link without all of its lanes", "cid", uint32(cid), "err", err)
		return
	}
	if conns != nil {
		// How it ended has been logged.
		_ = g.attach(ctx, cid, conns, o.peer)
	}
}

// A perCIDListener closes connections of an enclave that has too many.
type perCIDListener struct {
	net.Listener

	mu     sync.Mutex
	counts map[vsockconn.CID]int
}

// Accept returns the next connection that is not one too many.
func (l *perCIDListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		cid, _ := vsockconn.PeerCID(conn)
		if l.enter(cid) {
			return &countedConn{Conn: conn, leave: sync.OnceFunc(func() { l.leave(cid) })}, nil
		}
		conn.Close()
	}
}

func (l *perCIDListener) enter(cid vsockconn.CID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.counts[cid] >= maxLinksPerCID {
		return false
	}
	l.counts[cid]++
	return true
}

func (l *perCIDListener) leave(cid vsockconn.CID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.counts[cid]--; l.counts[cid] == 0 {
		delete(l.counts, cid)
	}
}

// A countedConn is counted until it is closed.
type countedConn struct {
	net.Conn
	leave func()
}

// WriteSocket is that of the connection.
func (c *countedConn) WriteSocket() syscall.RawConn { return tapstack.WriteSocket(c.Conn) }

// ReadSocket is that of the connection.
func (c *countedConn) ReadSocket() syscall.RawConn { return tapstack.ReadSocket(c.Conn) }

// Close closes the connection and makes room for another.
func (c *countedConn) Close() error {
	c.leave()
	return c.Conn.Close()
}
