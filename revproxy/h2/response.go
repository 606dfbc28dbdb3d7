package h2

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2/hpack"
)

// holdChunks is how many chunks a handler fills until they are sent without Flush.
const holdChunks = 4

// A response is an http.ResponseWriter. Its goroutine is the handler's.
type response struct {
	stream *stream
	req    *http.Request
	header http.Header
	head   bool // the answer has no content

	status    int                 // 0: WriteHeader was not called
	fields    []hpack.HeaderField // as they were when it was
	dated     bool                // there is a Date
	typed     bool                // nothing about the content has to be guessed
	parting   bool                // the client is to go when it has its answers
	announced []string            // trailers
	length    int64               // Content-Length; -1: none
	written   int64
	committed bool // HEADERS are on their way
	over      bool // the handler has returned

	full []*chunk
	last *chunk // may have room; nil: none
}

func newResponse(st *stream, req *http.Request) *response {
	return &response{stream: st, req: req, header: make(http.Header), length: -1, head: req.Method == http.MethodHead}
}

// Header implements http.ResponseWriter.
func (w *response) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter. Informational ones are sent at once.
func (w *response) WriteHeader(status int) {
	if w.status != 0 || w.over {
		return
	}
	if status < 100 || status > 999 {
		panic(fmt.Sprintf("h2: invalid WriteHeader code %v", status))
	}
	if status < 200 {
		w.inform(status)
		return
	}
	w.status = status
	w.fields = fieldsOf(w.header, true)
	_, w.dated = w.header["Date"]
	_, w.typed = w.header["Content-Type"] // nil is none, on purpose
	w.typed = w.typed || w.header.Get("Content-Encoding") != ""
	if lengths := w.header["Content-Length"]; len(lengths) > 0 {
		if n, err := strconv.ParseUint(lengths[0], 10, 63); err == nil {
			w.length = int64(n) //nolint:gosec // 63 bits
		}
	}
	for _, value := range w.header["Trailer"] {
		for name := range strings.SplitSeq(value, ",") {
			w.announce(http.CanonicalHeaderKey(strings.TrimSpace(name)))
		}
	}
	w.parting = strings.EqualFold(w.header.Get("Connection"), "close")
}

func (w *response) announce(name string) {
	if mayTrail(name) {
		w.announced = append(w.announced, name)
	}
}

// fieldsOf copies what of a header may be sent. Content-Length is the response's.
func fieldsOf(h http.Header, final bool) []hpack.HeaderField {
	fields := make([]hpack.HeaderField, 0, len(h)+3)
	for name, values := range h {
		if ofConnection(name) || name == "Content-Length" || !final && name == "Trailer" {
			continue
		}
		for _, value := range values {
			if validValue(value) {
				fields = append(fields, hpack.HeaderField{Name: name, Value: value})
			}
		}
	}
	return fields
}

func (w *response) inform(status int) {
	st, c := w.stream, w.stream.conn
	fields := fieldsOf(w.header, false)
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.out) > maxPending && !st.gone {
		c.pressed.Wait()
	}
	if !st.gone && !w.committed {
		c.sendFields(st, status, fields, false)
		c.push(true)
	}
}

// Write implements http.ResponseWriter. It waits while the client takes too little.
func (w *response) Write(p []byte) (int, error) { return write(w, p) }

// WriteString implements io.StringWriter.
func (w *response) WriteString(s string) (int, error) { return write(w, s) }

func write[T []byte | string](w *response, p T) (int, error) {
	if err := w.mayWrite(len(p)); err != nil {
		return 0, err
	}
	for n := 0; n < len(p); {
		if w.last != nil && w.last.room() == 0 {
			if w.head { // what it begins with is enough
				break
			}
			w.full, w.last = append(w.full, w.last), nil
		}
		if w.last == nil {
			if err := w.next(); err != nil {
				return n, err
			}
		}
		k := copy(w.last.bytes[w.last.w:], p[n:])
		w.last.w += k
		n += k
	}
	return len(p), nil
}

// next takes a chunk to fill. While the connection has lent as many as it likes, what
// was written before has to be sent first.
func (w *response) next() error {
	st, c := w.stream, w.stream.conn
	if n := len(w.full); n >= holdChunks || n > 0 && c.lentAll() {
		if err := w.send(); err != nil {
			return err
		}
	}
	if c.lentAll() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if st.awaitRoom(); st.gone {
			return st.err
		}
	}
	w.last = c.lend()
	return nil
}

func (w *response) mayWrite(n int) error {
	if w.over {
		return errDone
	}
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if !bodyAllowed(w.status) {
		return http.ErrBodyNotAllowed
	}
	w.written += int64(n)
	if w.length >= 0 && w.written > w.length {
		return http.ErrContentLength
	}
	return nil
}

func bodyAllowed(status int) bool {
	return status >= 200 && status != http.StatusNoContent && status != http.StatusNotModified
}

// Flush implements http.Flusher.
func (w *response) Flush() { _ = w.FlushError() }

// FlushError has sent what was written, as soon as nothing else is being sent.
func (w *response) FlushError() error {
	if w.over {
		return errDone
	}
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	w.fill()
	return w.send()
}

// send hands the full chunks over, after HEADERS. It waits for room.
func (w *response) send() error {
	st, c := w.stream, w.stream.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if !st.gone && !w.committed {
		w.commit(false)
	}
	if w.head {
		w.discard()
	}
	for i, k := range w.full {
		if st.awaitRoom(); st.gone {
			w.full = w.full[i:]
			w.discard()
			return st.err
		}
		c.queue(st, k)
	}
	w.full = w.full[:0]
	if st.gone {
		return st.err
	}
	c.push(true)
	return nil
}

// discard drops what was not handed over.
func (w *response) discard() {
	for _, k := range w.full {
		w.stream.conn.takeBack(k)
	}
	w.full = w.full[:0]
}

// commit sends HEADERS. c.mu is held. over says that the handler has returned, so that
// the length is known.
func (w *response) commit(over bool) {
	w.committed = true
	st, c := w.stream, w.stream.conn
	if w.length < 0 && over && bodyAllowed(w.status) && (w.written > 0 || !w.head) {
		w.length = w.written
	}
	fields := w.fields
	if w.length >= 0 {
		fields = append(fields, hpack.HeaderField{Name: "Content-Length", Value: strconv.FormatInt(w.length, 10)})
	}
	if !w.dated {
		fields = append(fields, hpack.HeaderField{Name: "Date", Value: time.Now().UTC().Format(http.TimeFormat)})
	}
	if len(w.full) > 0 && !w.typed {
		k := w.full[0]
		fields = append(fields, hpack.HeaderField{Name: "Content-Type", Value: http.DetectContentType(k.bytes[k.r:min(k.w, k.r+512)])})
	}
	w.fields = nil
	ends := over && st.fin == finEnd && len(st.trailing) == 0 && (w.head || len(w.full) == 0)
	c.sendFields(st, w.status, fields, ends)
	if w.parting {
		c.farewell(codeNo)
	}
}

// end ends the answer when the handler has returned, or has failed.
func (w *response) end(how fin) {
	if how == finEnd && w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	trailing := w.trailers()
	st, c := w.stream, w.stream.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	w.over = true
	w.fill()
	if st.gone {
		w.discard()
		return
	}
	st.fin, st.finCode = how, codeInternal
	if how == finReset {
		w.discard()
	} else if st.trailing = trailing; w.short() {
		st.fin = finReset // or the client could take it for whole
	}
	if !w.committed && how == finEnd {
		w.commit(true)
	}
	if w.head {
		w.discard()
	}
	for _, k := range w.full {
		c.queue(st, k)
	}
	c.enlist(st)
	c.push(true)
}

// fill closes the last chunk.
func (w *response) fill() {
	if w.last != nil {
		w.full, w.last = append(w.full, w.last), nil
	}
}

// short reports whether less was written than Content-Length says.
func (w *response) short() bool {
	return w.length > w.written && bodyAllowed(w.status) && !w.head
}

// trailers are those that were announced or have the prefix, and have values.
func (w *response) trailers() []hpack.HeaderField {
	var fields []hpack.HeaderField
	add := func(name, key string) {
		for _, value := range w.header[key] {
			if validValue(value) {
				fields = append(fields, hpack.HeaderField{Name: name, Value: value})
			}
		}
	}
	for _, name := range w.announced {
		add(name, name)
	}
	for key := range w.header {
		if name, ok := strings.CutPrefix(key, http.TrailerPrefix); ok && mayTrail(name) {
			add(name, key)
		}
	}
	return fields
}

// SetReadDeadline has reading the body fail from then on.
func (w *response) SetReadDeadline(at time.Time) error {
	return w.stream.setDeadline(0, at, w.stream.tooLateToRead)
}

// SetWriteDeadline resets the stream then.
func (w *response) SetWriteDeadline(at time.Time) error {
	return w.stream.setDeadline(1, at, w.stream.tooLateToWrite)
}

// EnableFullDuplex is how HTTP/2 is anyway.
func (w *response) EnableFullDuplex() error { return nil }

var (
	_ http.Flusher    = (*response)(nil)
	_ io.StringWriter = (*response)(nil)
)
