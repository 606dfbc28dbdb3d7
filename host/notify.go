package main

import (
	"net"
	"os"
)

// notify tells the service manager something, if there is one (sd_notify(3)). One
// that does not listen is no reason to stop.
func notify(state string) {
	where := os.Getenv("NOTIFY_SOCKET")
	if where == "" {
		return
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: where, Net: "unixgram"})
	if err != nil {
		return
	}
	defer conn.Close()
	_, _ = conn.Write([]byte(state))
}
