package tapstack

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// maxAnswer bounds the host's answer to the request that opens a link.
const maxAnswer = 4 << 10

// errNotSpoken reports a host that knows no extended link: stock ones, and ours
// of old. The enclave connects again and opens a plain link.
var errNotSpoken = errors.New("the host does not speak the extended link")

// Upgrade is the host's end of a POST to UpgradePath: it takes the stream away
// from the HTTP server, as Hijack does, and answers 101 with what the host says
// about itself, which may depend on what the enclave said. It returns the latter.
// From then on both send frames in the extended framing.
//
// If the request does not open a link, Upgrade answers it (400, 405, 409 for an error
// of answer, 426, 500) and returns an error; there is then nothing to close.
func Upgrade(w http.ResponseWriter, r *http.Request, answer func(peer Capabilities) (own Capabilities, err error)) (net.Conn, Capabilities, error) {
	if !strings.EqualFold(r.Header.Get("Upgrade"), upgradeProtocol) {
		w.Header().Set("Upgrade", upgradeProtocol)
		return nil, Capabilities{}, refuse(w, http.StatusUpgradeRequired, "this path wants Upgrade: "+upgradeProtocol)
	}
	// Several header lines of one name are one list (RFC 9110, section 5.3).
	peer, err := ParseCapabilities(strings.Join(r.Header.Values(capabilitiesHeader), ","))
	if err != nil {
		return nil, Capabilities{}, refuse(w, http.StatusBadRequest, err.Error())
	}
	own, err := answer(peer)
	if err != nil {
		return nil, Capabilities{}, refuse(w, http.StatusConflict, err.Error())
	}
	conn, err := Hijack(w, r)
	if err != nil {
		return nil, Capabilities{}, err
	}
	if err := writeWithin(conn, []byte(upgradeAnswer(own)), openTimeout); err != nil {
		conn.Close()
		return nil, Capabilities{}, fmt.Errorf("tapstack: answer the link's request: %w", err)
	}
	return conn, peer, nil
}

func upgradeAnswer(own Capabilities) string {
	return "HTTP/1.1 101 Switching Protocols\r\n" +
		"Connection: Upgrade\r\n" +
		"Upgrade: " + upgradeProtocol + "\r\n" +
		capabilitiesHeader + ": " + own.String() + "\r\n" +
		"\r\n"
}

func upgradeRequest(own Capabilities) string {
	return "POST " + UpgradePath + " HTTP/1.1\r\n" +
		"Host: \r\n" +
		"Connection: Upgrade\r\n" +
		"Upgrade: " + upgradeProtocol + "\r\n" +
		capabilitiesHeader + ": " + own.String() + "\r\n" +
		"Content-Length: 0\r\n" +
		"\r\n"
}

// askUpgrade is the enclave's end. It returns the bytes that came right behind
// the answer, which are frames already. The error is errNotSpoken if the host
// answered anything else than 101.
func askUpgrade(conn net.Conn, own Capabilities) (peer Capabilities, ahead []byte, err error) {
	if err := writeWithin(conn, []byte(upgradeRequest(own)), openTimeout); err != nil {
		return peer, nil, fmt.Errorf("request the link: %w", err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(openTimeout)); err != nil {
		return peer, nil, err
	}
	head, ahead, err := readHead(conn)
	if err != nil {
		return peer, nil, fmt.Errorf("read the answer to the link's request: %w", err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(head)), nil)
	if err != nil {
		return peer, nil, fmt.Errorf("the answer to the link's request is not HTTP: %w", err)
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusSwitchingProtocols {
		return peer, nil, fmt.Errorf("%w: it answered %s", errNotSpoken, answer.Status)
	}
	if got := answer.Header.Get("Upgrade"); !strings.EqualFold(got, upgradeProtocol) {
		return peer, nil, fmt.Errorf("the host changed to the protocol %q, which nobody asked for", got)
	}
	peer, err = ParseCapabilities(strings.Join(answer.Header.Values(capabilitiesHeader), ","))
	if err != nil {
		return peer, nil, err
	}
	return peer, ahead, conn.SetReadDeadline(time.Time{})
}

// readHead reads up to the empty line that ends the head of an HTTP message. A
// host that sends none is not listened to for ever.
func readHead(r io.Reader) (head, ahead []byte, err error) {
	end := []byte("\r\n\r\n")
	buf := make([]byte, 0, maxAnswer)
	for len(buf) < cap(buf) {
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if i := bytes.Index(buf, end); i >= 0 {
			return buf[:i+len(end)], buf[i+len(end):], nil
		}
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, nil, err
		}
	}
	return nil, nil, fmt.Errorf("no end of it in %d bytes", maxAnswer)
}

// writeWithin writes b in the given time. A peer that accepted and does not read
// would otherwise hold the caller.
func writeWithin(conn net.Conn, b []byte, d time.Duration) error {
	if err := conn.SetWriteDeadline(time.Now().Add(d)); err != nil {
		return err
	}
	if _, err := conn.Write(b); err != nil {
		return err
	}
	return conn.SetWriteDeadline(time.Time{})
}
