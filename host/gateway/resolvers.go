package gateway

import (
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// resolvers are the DNS servers of the host: given ones, or those of a file that
// is read again when it changes, as it does when the host moves networks.
type resolvers struct {
	path string

	mu       sync.Mutex
	fixed    []netip.AddrPort
	modified time.Time // of the file when it was read
	size     int64
	servers  []netip.AddrPort
}

func newResolvers(fixed []netip.AddrPort, path string) *resolvers {
	return &resolvers{fixed: fixed, path: path}
}

// fix changes the given ones.
func (r *resolvers) fix(servers []netip.AddrPort) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fixed = servers
}

func (r *resolvers) given() []netip.AddrPort {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fixed
}

// list returns the servers to ask, in order.
func (r *resolvers) list() ([]netip.AddrPort, error) {
	if fixed := r.given(); len(fixed) > 0 {
		return fixed, nil
	}
	info, err := os.Stat(r.path)
	if err != nil {
		return nil, fmt.Errorf("gateway: find resolvers: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.servers != nil && info.ModTime().Equal(r.modified) && info.Size() == r.size {
		return r.servers, nil
	}
	servers, err := readResolvConf(r.path)
	if err != nil {
		return nil, err
	}
	r.servers, r.modified, r.size = servers, info.ModTime(), info.Size()
	return servers, nil
}

// readResolvConf returns the name servers of a resolv.conf(5). A file without
// any means the host itself, as it does to the C library.
func readResolvConf(path string) ([]netip.AddrPort, error) {
	c, err := dns.ClientConfigFromFile(path)
	if err != nil {
		return nil, fmt.Errorf("gateway: read resolvers: %w", err)
	}
	servers := []netip.AddrPort{}
	for _, text := range c.Servers {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			continue // as the C library does with lines that it does not know
		}
		servers = append(servers, netip.AddrPortFrom(addr, 53))
	}
	if len(servers) == 0 {
		servers = append(servers, netip.MustParseAddrPort("127.0.0.1:53"))
	}
	return servers, nil
}
