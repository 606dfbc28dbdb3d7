package h2

import (
	"encoding/binary"
	"io"
	"net/http"
)

const (
	// maxSettings is how many one frame may have.
	maxSettings = 100
	// maxVain is how many frames that bring nothing a client may send in a row: PING,
	// SETTINGS, PRIORITY, empty DATA, streams that are reset. Content, and answers
	// that were sent whole, start the count anew.
	maxVain = 10_000
	// maxWaiting is how many streams, per stream that may be open, may wait for the
	// handlers of streams that were reset.
	maxWaiting = 4
)

// process does what a frame asks for. Its error is the stream's, or the connection's.
func (c *conn) process(h frameHead, p []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.out) > maxPending && !c.closed { // whoever does not read may not ask for more
		c.pressed.Wait()
	}
	if c.closed {
		return errGone
	}
	if !c.greeted {
		if h.kind != typeSettings || h.has(flagAck) {
			return connError(codeProtocol)
		}
		c.greeted = true
		defer c.arm()
	}
	switch h.kind {
	case typeSettings:
		return c.onSettings(h, p)
	case typeHeaders:
		return c.onHeaders(h.id, &c.reader.list)
	case typeData:
		return c.onData(h, p)
	case typeWindowUpdate:
		return c.onWindowUpdate(h.id, int64(binary.BigEndian.Uint32(p)&^(1<<31)))
	case typeReset:
		return c.onReset(h.id, code(binary.BigEndian.Uint32(p)))
	case typePing:
		return c.onPing(h, p)
	case typeGoAway:
		c.farewell(codeNo)
	case typePriority:
		if binary.BigEndian.Uint32(p)&^(1<<31) == h.id { // RFC 7540 section 5.3.1
			return streamError{id: h.id, code: codeProtocol}
		}
	case typePushPromise:
		return connError(codeProtocol)
	}
	return c.inVain() // unknown ones are ignored (RFC 9113 section 4.1)
}

// inVain counts a frame that brought nothing.
func (c *conn) inVain() error {
	if c.vain++; c.vain > maxVain {
		return connError(codeCalm)
	}
	return nil
}

func (c *conn) onPing(h frameHead, p []byte) error {
	if !h.has(flagAck) {
		c.out = appendPing(c.out, flagAck, p)
		c.push(false)
	} else if string(p) == pingData && c.pinged != 0 {
		c.pinged = 0
		c.arm()
	}
	return c.inVain()
}

func (c *conn) onSettings(h frameHead, p []byte) error {
	if h.has(flagAck) {
		if c.unacked--; c.unacked < 0 {
			return connError(codeProtocol)
		}
		return nil
	}
	if len(p) > 6*maxSettings {
		return connError(codeCalm)
	}
	for ; len(p) > 0; p = p[6:] {
		if err := c.onSetting(binary.BigEndian.Uint16(p), binary.BigEndian.Uint32(p[2:])); err != nil {
			return err
		}
	}
	c.out = appendHead(c.out, 0, typeSettings, flagAck, 0)
	c.push(false)
	return c.inVain()
}

func (c *conn) onSetting(id uint16, value uint32) error {
	switch {
	case id == settingHeaderTableSize:
		c.encoder.SetMaxDynamicTableSize(min(value, headerTableSize))
	case id == settingInitialWindow:
		return c.onInitialWindow(int64(value))
	case id == settingEnablePush && value > 1,
		id == settingNoPriorities && value > 1,
		id == settingMaxFrameSize && (value < frameSize || value > 1<<24-1): // ours are never longer than the least
		return connError(codeProtocol)
	}
	return nil
}

func (c *conn) onInitialWindow(size int64) error {
	if size > maxWindow {
		return connError(codeFlow)
	}
	more := size - c.initial
	c.initial = size
	for _, st := range c.streams {
		if st.window += more; st.window > maxWindow {
			return connError(codeFlow)
		}
		c.enlist(st)
	}
	return nil
}

func (c *conn) onWindowUpdate(id uint32, more int64) error {
	if id == 0 {
		if c.window += more; c.window > maxWindow {
			return connError(codeFlow)
		}
		if more == 0 {
			return connError(codeProtocol)
		}
		c.push(false)
		return nil
	}
	st := c.streams[id]
	if st == nil {
		return c.onAbsent(id)
	}
	if more == 0 {
		return streamError{id: id, code: codeProtocol}
	}
	if st.window += more; st.window > maxWindow {
		return streamError{id: id, code: codeFlow}
	}
	c.enlist(st)
	c.push(false)
	return nil
}

// onAbsent counts a frame for a stream that is no longer there, or was opened after
// GOAWAY; one that never was is an error (RFC 9113 section 5.1).
func (c *conn) onAbsent(id uint32) error {
	if id%2 == 0 || id > c.last && !c.going {
		return connError(codeProtocol)
	}
	return c.inVain()
}

func (c *conn) onReset(id uint32, why code) error {
	st := c.streams[id]
	if st == nil {
		return c.onAbsent(id)
	}
	c.drop(st, streamError{code: why})
	return c.inVain()
}

func (c *conn) onData(h frameHead, data []byte) error {
	size := int64(h.size)
	if !c.in.take(size) {
		return connError(codeFlow)
	}
	st := c.streams[h.id]
	fault := streamError{id: h.id}
	switch {
	case st == nil:
		c.returned(nil, size)
		if err := c.onAbsent(h.id); err != nil || h.id > c.last {
			return err
		}
		fault.code = codeClosed
	case st.remoteDone:
		fault.code = codeClosed
	case !st.in.take(size):
		fault.code = codeFlow
	case st.declared >= 0 && st.received+int64(len(data)) > st.declared: // RFC 9113 section 8.1.1
		fault.code, fault.cause = codeProtocol, errLength
	default:
		return c.content(h, st, data)
	}
	if st != nil {
		c.returned(nil, size)
	}
	return fault
}

// content takes what was allowed to come of a body.
func (c *conn) content(h frameHead, st *stream, data []byte) error {
	st.received += int64(len(data))
	unused := int64(h.size - len(data)) // padding
	switch {
	case len(data) > 0 && st.body.add(data):
		c.vain = 0
		c.returned(st, unused)
	case len(data) > 0: // nobody wants it, nor more of it
		unused = int64(h.size)
	case !h.has(flagEndStream):
		if err := c.inVain(); err != nil {
			return err
		}
		c.returned(st, unused)
	}
	c.returned(nil, unused)
	if h.has(flagEndStream) {
		return st.endRemote()
	}
	return nil
}

func (c *conn) onHeaders(id uint32, l *fieldList) error {
	if id%2 != 1 {
		return connError(codeProtocol)
	}
	if st := c.streams[id]; st != nil {
		return st.onTrailers(l)
	}
	switch {
	case c.going && id > c.last:
		return c.inVain() // RFC 9113 section 6.8
	case id <= c.last:
		return connError(codeClosed)
	}
	c.last = id
	switch {
	case len(c.streams) >= int(c.server.streams):
		return streamError{id: id, code: codeRefused}
	case l.depends == id:
		return streamError{id: id, code: codeProtocol}
	}
	st := newStream(c, id)
	handler := c.handler
	req, err := c.request(st, l)
	if err != nil {
		return err
	}
	if l.truncated {
		handler = http.HandlerFunc(tooLong)
	}
	return c.open(st, req, handler)
}

// open adds a stream, and runs its handler as soon as one may.
func (c *conn) open(st *stream, req *http.Request, handler http.Handler) error {
	st.ctx, st.cancel = contextOf(c.base)
	st.response = newResponse(st, req.WithContext(st.ctx))
	st.handler = handler
	if len(c.streams) == 0 {
		c.state(http.StateActive)
	}
	c.streams[st.id] = st
	if c.handlers >= c.server.streams {
		if len(c.waiting) >= maxWaiting*int(c.server.streams) {
			return connError(codeCalm)
		}
		c.waiting = append(c.waiting, st)
		return nil
	}
	c.handlers++
	c.running.Go(st.run)
	return nil
}

// state tells net/http's hook, if there is one.
func (c *conn) state(s http.ConnState) {
	if hook := c.server.http.ConnState; hook != nil {
		hook(c.given, s)
	}
}

// tooLong answers a header list that is longer than allowed (RFC 6585 section 5).
func tooLong(w http.ResponseWriter, _ *http.Request) {
	w.WriteHeader(http.StatusRequestHeaderFieldsTooLarge)
	_, _ = io.WriteString(w, "<h1>HTTP Error 431</h1><p>Request Header Field(s) Too Large</p>")
}
