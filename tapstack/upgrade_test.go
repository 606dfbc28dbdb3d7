package tapstack_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corridor-enclave/corridor/tapstack"
)

// ours is what both ends of this version say.
func ours() tapstack.Capabilities {
	return tapstack.Capabilities{Offload: true, Ping: true, IPv6: true, MaxFrame: tapstack.MaxFrame, MTU: tapstack.DefaultMTU}
}

// linkName is the name of the link in the vectors.
const linkName = "000102030405060708090a0b0c0d0e0f"

// lanes is what is said where an end takes several.
func lanes(count int, link string) tapstack.Capabilities {
	c := ours()
	c.Lanes, c.Link = count, link
	return c
}

// oldest is what both ends of the first version said.
func oldest() tapstack.Capabilities {
	return tapstack.Capabilities{Offload: true, MaxFrame: tapstack.MaxFrame, MTU: tapstack.DefaultMTU}
}

func TestUpgradeMatchesVectors(t *testing.T) {
	t.Parallel()
	for suffix, c := range map[string]tapstack.Capabilities{"": oldest(), "-2": ours(), "-3": lanes(2, ""), "-lane": lanes(0, linkName)} {
		if got, want := tapstack.UpgradeRequest(c), vector(t, "upgrade-request"+suffix+".hex"); got != string(want) {
			t.Errorf("request is %q, want %q", got, want)
		}
		if suffix == "-lane" {
			continue // answered like one of old
		}
		if suffix == "-3" {
			c = lanes(4, linkName)
		}
		if got, want := tapstack.UpgradeAnswer(c), vector(t, "upgrade-answer"+suffix+".hex"); got != string(want) {
			t.Errorf("answer is %q, want %q", got, want)
		}
	}
}

func TestParseCapabilities(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"mtu=575", "mtu=65522", "mtu", "mtu=1500x", "max-frame=1513", "vnet, max-frame=65536", "max-frame=-1",
		"lanes=0", "lanes=65536", "lanes", "link=00", "link", "link=000102030405060708090A0B0C0D0E0F", "link=" + linkName + "00"} {
		if c, err := tapstack.ParseCapabilities(bad); err == nil {
			t.Errorf("ParseCapabilities(%q) = %+v, want an error", bad, c)
		}
	}
	for _, tt := range []struct {
		text string
		want tapstack.Capabilities
	}{
		{"", tapstack.PlainPeer()},
		{"lanes=7, ipv6=fd00::1/64, ping=2, vnet=2", tapstack.Capabilities{Offload: true, MaxFrame: 1514, MTU: 1500, Lanes: 7}},
		{lanes(3, linkName).String(), lanes(3, linkName)},
		{"ipv6,ping", tapstack.Capabilities{Ping: true, IPv6: true, MaxFrame: 1514, MTU: 1500}},
		{oldest().String(), oldest()},
		{ours().String(), ours()},
		{"mtu=9000,max-frame=9014", tapstack.Capabilities{MaxFrame: 9014, MTU: 9000}},
	} {
		if got, err := tapstack.ParseCapabilities(tt.text); err != nil || got != tt.want {
			t.Errorf("ParseCapabilities(%q) = %+v, %v; want %+v", tt.text, got, err, tt.want)
		}
	}
}

// FuzzParseCapabilities: what is accepted is within the limits, and is read the
// same again as it is written.
func FuzzParseCapabilities(f *testing.F) {
	f.Add("vnet, max-frame=65535, mtu=1500")
	f.Add("lanes=4,,mtu=,vnet=0")
	f.Add("lanes=4,link=" + linkName)
	f.Fuzz(func(t *testing.T, text string) {
		c, err := tapstack.ParseCapabilities(text)
		if err != nil {
			return
		}
		if c.MTU < 576 || c.MTU > 65521 || c.MaxFrame < 1514 || c.MaxFrame > 65535 || c.Lanes < 0 || c.Lanes > 65535 {
			t.Fatalf("%q gives %+v", text, c)
		}
		if again, err := tapstack.ParseCapabilities(c.String()); err != nil || again != c {
			t.Fatalf("%q is read as %+v, %v; want %+v", c.String(), again, err, c)
		}
	})
}

func TestUpgradeRefuses(t *testing.T) {
	t.Parallel()
	const head = "POST /tapstack/v1/connect HTTP/1.1\r\nHost: x\r\n"
	tests := []struct {
		name, request, status string
	}{
		{"no Upgrade", head + "\r\n", "426 Upgrade Required"},
		{"another protocol", head + "Upgrade: websocket\r\n\r\n", "426 Upgrade Required"},
		{"a number out of range", head + "Upgrade: tapstack/1\r\nTapstack: mtu=1\r\n\r\n", "400 Bad Request"},
		{"a number out of range in a second line", head + "Upgrade: tapstack/1\r\nTapstack: vnet\r\nTapstack: mtu=1\r\n\r\n", "400 Bad Request"},
		{"a body", head + "Upgrade: tapstack/1\r\nContent-Length: 1\r\n\r\nx", "400 Bad Request"},
		{"GET", strings.Replace(head, "POST", "GET", 1) + "Upgrade: tapstack/1\r\n\r\n", "405 Method Not Allowed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Connection", "close")
				if conn, _, err := tapstack.Upgrade(w, r, says(ours())); err == nil {
					t.Error("Upgrade returned no error")
					conn.Close()
				}
			})
			conn := connectTo(t, addr)
			if _, err := io.WriteString(conn, tt.request); err != nil {
				t.Fatal(err)
			}
			answer, err := io.ReadAll(conn)
			if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 "+tt.status) {
				t.Errorf("answer is %q, %v; want %s", answer, err, tt.status)
			}
		})
	}
}

// TestUpgradeOfRecordedRequest: the host takes what version 1 sends, with frames
// right behind it.
func TestUpgradeOfRecordedRequest(t *testing.T) {
	t.Parallel()
	addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
		conn, peer, err := tapstack.Upgrade(w, r, says(oldest()))
		if err != nil {
			t.Errorf("Upgrade: %v", err)
			return
		}
		defer conn.Close()
		if peer != oldest() {
			t.Errorf("the enclave said %+v, want %+v", peer, oldest())
		}
		io.Copy(conn, conn)
	})
	conn := connectTo(t, addr)
	frames := vector(t, "extended-frames.hex")
	if _, err := conn.Write(append(vector(t, "upgrade-request.hex"), frames...)); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(conn)
	if want := append(vector(t, "upgrade-answer.hex"), frames...); err != nil || !bytes.Equal(got, want) {
		t.Errorf("host answered %q, %v; want %q", got, err, want)
	}
}

// acceptExtended takes the next stream and reads the request for the extended
// link.
func (r *rig) acceptExtended() *hostStream {
	r.t.Helper()
	h := &hostStream{t: r.t, Conn: <-r.streams}
	r.t.Cleanup(func() { h.Close() })
	want := vector(r.t, "upgrade-request-2.hex")
	got := make([]byte, len(want))
	if _, err := io.ReadFull(h, got); err != nil || !bytes.Equal(got, want) {
		r.t.Fatalf("request is %q, %v; want %q", got, err, want)
	}
	h.frames = tapstack.NewFrameReader(h, tapstack.Extended, tapstack.MaxFrame)
	return h
}

func extended(_ *rig, c *tapstack.LinkConfig) { c.Plain, c.IPv6 = false, true }

func TestLinkFallsBackToPlain(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"a stock host":              "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
		"a host that takes no vnet": "HTTP/1.1 101 Switching Protocols\r\nUpgrade: tapstack/1\r\nTapstack: max-frame=65535\r\n\r\n",
		"a host of small frames":    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: tapstack/1\r\nTapstack: vnet\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, extended)
				start := time.Now()
				r.acceptExtended().raw([]byte(answer))
				h := r.acceptUp()
				if took := time.Since(start); took > 51*time.Millisecond {
					t.Errorf("falling back took %v, want no time beside the plain link's 50ms", took)
				}
				r.sendUp(frameOf("hello"))
				if got := h.read(); !bytes.Equal(got, frameOf("hello")) {
					t.Errorf("host got % x", got)
				}
				if got := r.link.Status(); got.Extended || got.LastError != "" {
					t.Errorf("status is %+v, want the plain link and no error", got)
				}
			})
		})
	}
}

func TestLinkRefusesAnswers(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ answer, want string }{
		"no HTTP":              {"\x2a\x00 frames of a host that reads no HTTP\r\n\r\n", "is not HTTP"},
		"a head without end":   {"HTTP/1.1 101 S\r\nX: " + strings.Repeat("x", 5000), "no end of it in 4096 bytes"},
		"another protocol":     {"HTTP/1.1 101 S\r\nUpgrade: h2c\r\n\r\n", `protocol "h2c"`},
		"a bad capability":     {"HTTP/1.1 101 S\r\nUpgrade: tapstack/1\r\nTapstack: vnet, mtu=0\r\n\r\n", `capability mtu: "0"`},
		"the end":              {"", "unexpected EOF"},
		"silence for too long": {"HTTP/1.1 101 S\r\n", "timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, extended)
				h := r.acceptExtended()
				if tt.answer != "" {
					_, _ = h.Write([]byte(tt.answer)) // the link may close in the middle of it
				}
				if name == "the end" {
					h.Close()
				}
				r.await("the attempt has failed", func(s tapstack.LinkStatus) bool { return s.LastError != "" })
				if got := r.link.Status(); !strings.Contains(got.LastError, tt.want) || got.Connected {
					t.Errorf("status is %+v, want %q in its error", got, tt.want)
				}
				r.acceptExtended() // it tries again
			})
		})
	}
}

func TestLinkExtended(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, extended)
		h := r.acceptExtended()
		large := offloaded(make([]byte, 40000), 1460)
		// Answer and frames in one write, as the fastest host would send them.
		down := append(vector(t, "upgrade-answer-newer.hex"), vector(t, "extended-frames.hex")...)
		down = appendExtended(down, large)
		wrong := bytes.Clone(large)
		wrong[atField] = 99
		down = appendExtended(down, wrong)
		h.raw(appendExtended(down, plain(frameOf("last"))))
		r.readDown()
		if got := r.readDown(); !bytes.HasSuffix(got, []byte("data")) {
			t.Errorf("second frame is % x, want the one behind the control record", got)
		}
		if got := r.readDown(); !bytes.Equal(got, large[tapstack.OffloadHeader:]) {
			t.Errorf("a large frame of %d bytes arrived as %d others", len(large), len(got))
		}
		if got := r.readDown(); !bytes.Equal(got, frameOf("last")) {
			t.Errorf("behind a wrong header comes % x, want the last frame", got)
		}
		if err := r.app.WriteFrame(large); err != nil {
			t.Fatal(err)
		}
		if got, err := h.frames.Next(); err != nil || !bytes.Equal(got, large) {
			t.Errorf("the host got %d bytes, %v; want the large frame as it was", len(got), err)
		}
		synctest.Wait()
		got := r.link.Status()
		if !got.Extended || !got.Connected || got.Drops != (tapstack.LinkDrops{Offload: 1}) || got.Downlink.Frames != 4 {
			t.Errorf("status is %+v, want the extended link up, 4 frames down, one dropped for its header", got)
		}
	})
}

// appendExtended appends a frame, with its virtio-net header, as it is on the wire.
func appendExtended(dst, frame []byte) []byte {
	var head [4]byte
	tapstack.PutExtended(head[:], len(frame)-tapstack.OffloadHeader)
	return append(append(dst, head[:]...), frame...)
}

// A write limit cuts frames, and nothing else changes.
func TestLinkLimitsItsWrites(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const most = 1000
		r := newRig(t, func(r *rig, c *tapstack.LinkConfig) {
			c.Plain, c.IPv6, c.WriteMax = false, true, most
			c.Dial = func(ctx context.Context) (net.Conn, error) {
				conn, err := r.dial(ctx)
				return &watchedConn{Conn: conn, t: t, most: most}, err
			}
		})
		h := r.acceptExtended()
		h.raw(vector(t, "upgrade-answer.hex"))
		large := offloaded(make([]byte, 40000), 1460)
		if err := r.app.WriteFrame(large); err != nil {
			t.Fatal(err)
		}
		if got, err := h.frames.Next(); err != nil || !bytes.Equal(got, large) {
			t.Errorf("the host got %d bytes, %v; want the large frame as it was", len(got), err)
		}
	})
}

// A watchedConn fails the test at a write of more than most bytes.
type watchedConn struct {
	net.Conn
	t    *testing.T
	most int
}

func (c *watchedConn) Write(b []byte) (int, error) {
	if len(b) > c.most {
		c.t.Errorf("a write of %d bytes, want at most %d", len(b), c.most)
	}
	return c.Conn.Write(b)
}

// says is the answer of a host that looks at nothing.
func says(own tapstack.Capabilities) func(tapstack.Capabilities) (tapstack.Capabilities, error) {
	return func(tapstack.Capabilities) (tapstack.Capabilities, error) { return own, nil }
}
