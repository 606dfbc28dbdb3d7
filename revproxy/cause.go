package revproxy

// A Cause is why the proxy answered a request itself. The set is closed, so that
// it can label a metric; its names are error types of RFC 9209 section 2.3, as
// the Proxy-Status field has them.
type Cause uint8

// The causes. The proxy knows no others.
const (
	ConnectionRefused    Cause  = iota // nothing accepts connections where the app should
	ConnectionTimeout                  // the app did not accept the connection in time
	ConnectionTerminated               // the app ended the connection without an answer
	ConnectionLimit                    // there is no room for another request
	Unavailable                        // the app cannot be reached for another reason
	RequestError                       // the client's message is malformed, incomplete, too large or too slow, or it went away
	RequestDenied                      // the request is well-formed, and not passed on
	ResponseHeader                     // the head of the app's answer is too large
	ResponseTimeout                    // the app did not answer in time
	UpgradeFailed                      // the app switched to another protocol than asked for
	ProtocolError                      // the app's answer is not valid HTTP
	LoopDetected                       // the request has been here before
	causes               = iota        // how many there are
)

// Causes returns all of them.
func Causes() []Cause {
	all := make([]Cause, causes)
	for i := range all {
		all[i] = Cause(i)
	}
	return all
}

// String returns the error type of RFC 9209.
func (c Cause) String() string {
	switch c {
	case ConnectionRefused:
		return "connection_refused"
	case ConnectionTimeout:
		return "connection_timeout"
	case ConnectionTerminated:
		return "connection_terminated"
	case ConnectionLimit:
		return "connection_limit_reached"
	case Unavailable:
		return "destination_unavailable"
	case RequestError:
		return "http_request_error"
	case RequestDenied:
		return "http_request_denied"
	case ResponseHeader:
		return "http_response_header_section_size"
	case ResponseTimeout:
		return "http_response_timeout"
	case UpgradeFailed:
		return "http_upgrade_failed"
	case ProtocolError:
		return "http_protocol_error"
	case LoopDetected:
		return "proxy_loop_detected"
	}
	return "proxy_internal_error"
}
