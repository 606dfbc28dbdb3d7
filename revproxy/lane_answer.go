package revproxy

import (
	"net/http"
	"strconv"
	"time"

	"github.com/corridor-enclave/corridor/revproxy/head"
)

// deliver passes the app's answer on, whose beginning has come.
func (e *laneExchange) deliver() outcome {
	req, res := &e.b.req, &e.b.res
	v := res.Parse(e.b.answer[:e.got], req.Bodyless())
	for v == head.Incomplete && e.got < len(e.b.answer) {
		n, err := e.hear(e.b.answer[e.got:], e.lane.proxy.config.ResponseHeaderTimeout)
		e.got += n
		if n == 0 && err != nil {
			break
		}
		v = res.Parse(e.b.answer[:e.got], req.Bodyless())
	}
	if v != head.Simple {
		return e.pass()
	}
	ends := req.Close || e.lane.draining.Load()
	e.x.sight.answers(res.Status)
	e.writeHead(ends)
	var whole bool
	if res.Length < 0 {
		whole = e.chunked()
	} else {
		whole = e.counted()
	}
	switch {
	case !whole:
		e.x.sight.broken = true
		e.drop()
		if !e.gone() {
			e.lane.proxy.accuse(e.stand(), e.x.app)
		}
		e.lane.proxy.config.Log.Debug("answer broken off", "request", string(e.id[:]))
		return broken
	case ends:
		return last
	}
	return goesOn
}

// pass leaves the answer, whose beginning is there, to the ordinary way.
func (e *laneExchange) pass() outcome {
	e.unwatch()
	if e.gone() {
		e.drop()
		return e.fail(http.ErrAbortHandler)
	}
	line := e.line
	if e.task != nil {
		var err error
		if line, err = e.line.Move(e.x.app.lines, offLoop); err != nil {
			e.line = nil
			return e.fail(err)
		}
	}
	e.lane.running.Add(1)
	e.begun = &begunAnswer{
		lane: e.lane, line: line, app: e.x.app, client: e.client,
		early: append([]byte(nil), e.b.answer[:e.got]...), id: string(e.id[:]), limit: e.limit, sight: e.x.sight,
	}
	e.line, e.x.app = nil, nil
	return begunElsewhere
}

// writeHead writes the head of the answer into b.out.
func (e *laneExchange) writeHead(ends bool) {
	res, from := &e.b.res, e.b.answer[:e.got]
	out := append(e.b.out[:0], "HTTP/1.1"...)
	out = append(out, from[len("HTTP/1.1"):res.Line]...)
	chunks := res.Length < 0
	out = appendFields(out, from, res.All(), func(k head.Kind) bool { return !k.OfHop() || k == head.Coding && chunks })
	if !res.Dated {
		out = e.lane.appendDate(out, e.begin)
	}
	if ends {
		out = append(out, "Connection: close\r\n"...)
	}
	e.b.out = append(out, "\r\n"...)
	e.x.sight.sent = -int64(len(e.b.out))
}

// send sends b.out to the client.
func (e *laneExchange) send() bool {
	n, err := e.conn.Write(e.b.out)
	e.x.sight.sent += int64(n)
	e.b.out = e.b.out[:0]
	return err == nil
}

// keep gives the connection to the app back, if it can be used again.
func (e *laneExchange) keep(clean bool) {
	e.unwatch()
	if e.gone() || !clean || e.b.res.Last {
		e.drop()
		return
	}
	e.line.Keep(e.now())
	e.line = nil
}

// counted passes a body of a known length on. It reports whether that was whole.
func (e *laneExchange) counted() bool {
	body := e.b.answer[e.b.res.Size:e.got]
	left := e.b.res.Length - int64(len(body))
	if left <= 0 {
		e.b.out = append(e.b.out, body[:e.b.res.Length]...)
		e.keep(left == 0)
		return e.send()
	}
	e.b.out = append(e.b.out, body...)
	if !e.send() {
		return false
	}
	big := e.lane.borrow()
	defer e.lane.large.Put(big)
	for left > 0 {
		n, err := e.hear(big[:min(left, int64(len(big)))], e.lane.proxy.config.ResponseBodyTimeout)
		if n == 0 && err != nil {
			return false
		}
		if left -= int64(n); left == 0 {
			e.keep(true)
		}
		sent, err := e.conn.Write(big[:n])
		if e.x.sight.sent += int64(sent); err != nil {
			return false
		}
	}
	return true
}

// chunked passes a body in chunks on. It reports whether that was whole.
func (e *laneExchange) chunked() bool {
	chunks := &e.b.chunks
	chunks.Reset()
	piece := e.b.answer[e.b.res.Size:e.got]
	var big *largeBuffer
	for {
		var used int
		var err error
		e.b.out, used, err = chunks.Copy(e.b.out, piece)
		if err != nil {
			_ = e.send()
			return false
		}
		if chunks.Done() {
			e.keep(used == len(piece))
			return e.send()
		}
		if len(e.b.out) > 0 && !e.send() {
			return false
		}
		if big == nil {
			big = e.lane.borrow()
			defer e.lane.large.Put(big)
		}
		n, err := e.hear(big[:], e.lane.proxy.config.ResponseBodyTimeout)
		if n == 0 && err != nil {
			return false
		}
		piece = big[:n]
	}
}

func (l *Lane) borrow() *largeBuffer {
	if b, ok := l.large.Get().(*largeBuffer); ok {
		return b
	}
	return new(largeBuffer)
}

// A laneWriter takes an answer that the proxy makes itself. It has a body that
// fits into memory, and no trailers.
type laneWriter struct {
	header http.Header
	status int
	body   []byte
}

func (w *laneWriter) Header() http.Header { return w.header }

func (w *laneWriter) WriteHeader(status int) { w.status = status }

func (w *laneWriter) Write(p []byte) (int, error) {
	w.body = append(w.body, p...)
	return len(p), nil
}

// answered sends what answer writes.
func (e *laneExchange) answered(answer func(http.ResponseWriter)) outcome {
	w := &laneWriter{header: make(http.Header), status: http.StatusOK}
	answer(w)
	ends := w.header.Get("Connection") == "close" || e.b.req.Close || e.lane.draining.Load()
	if ends {
		w.header.Set("Connection", "close")
	}
	w.header.Set("Content-Length", strconv.Itoa(len(w.body)))
	out := append(e.b.out[:0], "HTTP/1.1 "...)
	out = append(strconv.AppendInt(out, int64(w.status), 10), ' ')
	out = append(append(out, text(w.status)...), "\r\n"...)
	out = e.lane.appendDate(out, time.Now())
	for name, values := range w.header {
		for _, value := range values {
			out = append(append(append(append(out, name...), ": "...), value...), "\r\n"...)
		}
	}
	e.b.out = append(out, "\r\n"...)
	e.x.sight.sent = -int64(len(e.b.out))
	if !e.b.req.Bodyless() {
		e.b.out = append(e.b.out, w.body...)
	}
	switch {
	case !e.send():
		return broken
	case ends:
		return last
	}
	return goesOn
}
