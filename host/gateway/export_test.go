package gateway

// SetPing makes networks that are made from now on take their ping sockets from open.
func (g *Gateway) SetPing(open func(is6 bool) (Pinger, error)) {
	g.openPing = func(is6 bool) (pinger, error) { return open(is6) }
}

// A Pinger is what a ping socket is to the gateway.
type Pinger = pinger

// The limits of echo requests.
const (
	MaxEchoes    = maxEchoes
	EchoPatience = echoPatience
)
