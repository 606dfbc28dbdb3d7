package revproxy

import (
	"io"
	"net/http"
	"net/textproto"
	"slices"
	"strings"

	"github.com/corridor-enclave/corridor/revproxy/head"
)

// forward carries out one exchange with the app.
func (p *Proxy) forward(w http.ResponseWriter, r *http.Request, x *exchange) {
	if u := x.upgrade; strings.ContainsFunc(u, func(c rune) bool { return c < ' ' || c > '~' }) {
		p.answer(w, r, x, badUpgrade(), nil)
		return
	}
	res, err := p.apps.exchange(p.outbound(r, x), x, informer(w))
	p.judge(w, r, x, res, err)
}

// judge passes an answer back, or fails.
func (p *Proxy) judge(w http.ResponseWriter, r *http.Request, x *exchange, res *http.Response, err error) {
	if err == nil {
		if err = checkHead(x, res); err != nil {
			_ = res.Body.Close()
		}
	}
	if err != nil {
		p.fail(w, r, x, err)
		return
	}
	p.passBack(w, r, x, res)
}

// passBack passes the app's answer on.
func (p *Proxy) passBack(w http.ResponseWriter, r *http.Request, x *exchange, res *http.Response) {
	x.sight.answers(res.StatusCode)
	if res.StatusCode == http.StatusSwitchingProtocols {
		p.tunnel(w, r, x, res)
		return
	}
	keepForm(x, res)
	err := p.deliver(w, x, res)
	if err == nil {
		p.acquit(r)
		return
	}
	x.sight.broken = true
	if x.Err() == nil {
		p.accuse(r, x.app)
	}
	_ = res.Body.Close()
	// What has come belongs to the client; that it is not all, only the end of
	// the connection or of the stream can tell.
	_ = http.NewResponseController(w).Flush()
	p.config.Log.Debug("answer broken off", "request", x.id, "err", err)
	if r.Context().Value(http.ServerContextKey) != nil {
		panic(http.ErrAbortHandler)
	}
}

// outbound makes the request to the app. Its host and target depend on the app.
func (p *Proxy) outbound(r *http.Request, x *exchange) *http.Request {
	out := r.WithContext(x)
	out.URL = &x.url
	x.url.Scheme = "http"
	out.Header = make(http.Header, len(r.Header)+8)
	hop := hopOf(r.Header)
	for name, values := range r.Header {
		if !hop.has(name) && (p.config.Outward || !isForwarding(name)) {
			out.Header[name] = values
		}
	}
	if listed(r.Header["Te"], "trailers") {
		out.Header["Te"] = []string{"trailers"}
	}
	if x.upgrade != "" {
		out.Header["Connection"], out.Header["Upgrade"] = []string{"Upgrade"}, []string{x.upgrade}
	}
	if _, ok := out.Header["User-Agent"]; !ok {
		out.Header["User-Agent"] = []string{""} // or net/http adds its own
	}
	if r.Method == http.MethodOptions {
		countDown(out.Header)
	}
	if !p.config.Outward {
		setForwarding(out.Header, r, p.fields, x.id)
	}
	via := strings.TrimPrefix(r.Proto, "HTTP/") + " " + p.mark
	out.Header["Via"] = append(slices.Clip(out.Header["Via"]), via)
	out.Body, out.Close, out.Trailer = nil, false, nil
	if x.body != nil {
		out.Body, out.Trailer = x, x.trailer(r.Trailer)
	}
	return out
}

// informer returns what passes informational answers on.
func informer(w http.ResponseWriter) func(int, http.Header) error {
	return func(code int, h http.Header) error {
		inform(w, code, h)
		return nil
	}
}

// inform passes an informational answer on. The server does not forget its
// fields by itself.
func inform(w http.ResponseWriter, code int, fields http.Header) {
	h := w.Header()
	hop := hopOf(fields)
	for name, values := range fields {
		if !hop.has(name) {
			h[name] = values
		}
	}
	w.WriteHeader(code)
	clear(h)
}

// deliver copies an answer to the client. Its error means that the answer was
// broken off.
func (p *Proxy) deliver(w http.ResponseWriter, x *exchange, res *http.Response) error {
	h := w.Header()
	for name, values := range res.Header {
		h[name] = values
	}
	announced := len(res.Trailer)
	if announced > 0 {
		names := make([]string, 0, announced)
		for name := range res.Trailer {
			names = append(names, name)
		}
		h["Trailer"] = []string{strings.Join(names, ", ")}
	}
	w.WriteHeader(res.StatusCode)
	if res.Body != http.NoBody {
		if err := p.copyBody(w, x, res); err != nil {
			return err
		}
	}
	x.letGo(w)
	_ = res.Body.Close()
	passTrailers(w, res.Trailer, announced)
	return nil
}

// copyBody copies the body of an answer, and keeps nothing of it back while the
// app pauses.
func (p *Proxy) copyBody(w http.ResponseWriter, x *exchange, res *http.Response) error {
	buf := p.buffers.Get()
	defer p.buffers.Put(buf)
	control := http.NewResponseController(w)
	if res.ContentLength < 0 {
		// The client may wait for the head before it says what the app waits for.
		_ = control.Flush() // a client that is gone is noticed by the next Write
	}
	var written int64
	piece := bufferSize
	if x.in.ProtoMajor == 2 && x.in.TLS != nil {
		piece = recordSize
		buf = buf[:bufferSize/piece*piece] // whole ones, as long as the app has so much
	}
	for {
		n, err := res.Body.Read(buf)
		if n > 0 {
			if werr := writeIn(w, buf[:n], piece); werr != nil {
				return werr
			}
			x.sight.sent += int64(n)
			// The last piece of a known length is sent with the end of the answer.
			if written += int64(n); written != res.ContentLength {
				_ = control.Flush()
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// passTrailers passes the trailers on, also those that the app did not announce.
func passTrailers(w http.ResponseWriter, trailer http.Header, announced int) {
	if len(trailer) == 0 {
		return
	}
	// Lest the server give a short answer a length, and drop the trailers.
	_ = http.NewResponseController(w).Flush()
	prefix := http.TrailerPrefix
	if len(trailer) == announced {
		prefix = ""
	}
	for name, values := range trailer {
		w.Header()[prefix+name] = values
	}
}

// A hop knows which fields of a message are for one connection only (RFC 9110
// section 7.6.1).
type hop struct{ named []string }

func hopOf(h http.Header) hop {
	var named []string
	for _, value := range h["Connection"] {
		for name := range strings.SplitSeq(value, ",") {
			if name = textproto.TrimString(name); name != "" {
				named = append(named, http.CanonicalHeaderKey(name))
			}
		}
	}
	return hop{named}
}

func (h hop) has(name string) bool {
	return head.KindOf(name).OfHop() || slices.Contains(h.named, name)
}

// strip removes the fields of the hop.
func (h hop) strip(from http.Header) {
	for name := range from {
		if h.has(name) {
			delete(from, name)
		}
	}
}

// listed reports whether a token is in a field that is a list.
func listed(values []string, token string) bool {
	for _, value := range values {
		for item := range strings.SplitSeq(value, ",") {
			if strings.EqualFold(textproto.TrimString(item), token) {
				return true
			}
		}
	}
	return false
}

// upgradeOf is the protocol that one side wants to switch to, "" for none.
func upgradeOf(h http.Header) string {
	if len(h["Upgrade"]) == 0 || !listed(h["Connection"], "Upgrade") {
		return ""
	}
	return h.Get("Upgrade")
}

// recordSize is what a DATA frame of HTTP/2 may hold to fit into one TLS record
// with its head of 9 bytes. One byte more costs a record and a system call of its own.
const recordSize = 16<<10 - 9

// writeIn writes p in pieces.
func writeIn(w io.Writer, p []byte, size int) error {
	for len(p) > 0 {
		n, err := w.Write(p[:min(size, len(p))])
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}
