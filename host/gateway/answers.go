package gateway

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	// maxAnswered bounds the addresses that are remembered for one enclave. Only
	// names of egress rules are, so that an enclave cannot fill it with others.
	maxAnswered = 4096
	// minHeld is how long an address is held for its name at least: programs
	// look a name up and connect to it somewhat later, again and again.
	minHeld = 5 * time.Minute
	// heldBeyond is what an address is held longer than the enclave was told, for
	// the connection that is opened at the last moment.
	heldBeyond = 30 * time.Second
	// maxTold bounds the addresses that are taken from one answer.
	maxTold = 64
	// maxChain bounds the aliases that an answer is followed through.
	maxChain = 16
)

// answers remember, for one enclave, which addresses stand for the names of
// egress rules: those of the answers that the gateway's resolver gave to this
// enclave, for as long as it said. What an enclave is told by others, or makes up,
// is not among them.
//
//	query   app.example.com
//	answer  app.example.com  CNAME  edge.cdn.example
//	        edge.cdn.example A      198.51.100.7       asked for, and allowed:
//	                                                   198.51.100.7 is held
//
// Rules that allow look at the name that was asked for alone: whoever owns it may
// lead it where he likes. Rules that deny look at all names of the chain.
type answers struct {
	egress Egress
	live   live // stronger than egress

	mu      sync.Mutex
	held    map[netip.Addr][]holding
	evicted uint64
}

// A holding is that an address stands for the names of a rule until a time.
type holding struct {
	rule  Destination
	until time.Time
}

func newAnswers(e Egress) *answers {
	return &answers{egress: e, held: map[netip.Addr][]holding{}}
}

// holds reports whether the address stands for the names of the rule at now.
func (a *answers) holds(addr netip.Addr, rule Destination, now time.Time) bool {
	if a == nil || !rule.isName() {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.ContainsFunc(a.held[addr], func(h holding) bool { return h.rule == rule && now.Before(h.until) })
}

// learn notes the addresses of an answer. It must be called before the enclave
// gets the answer.
func (a *answers) learn(m *dns.Msg, now time.Time) {
	chain := chainOf(m)
	rules := a.rulesFor(chain)
	if len(rules) == 0 {
		return
	}
	last, told := chain[len(chain)-1], 0
	for _, r := range m.Answer {
		if told == maxTold {
			return
		}
		if canonical(r.Header().Name) != last {
			continue
		}
		addr, ok := addrOf(r)
		if !ok {
			continue
		}
		told++
		held := max(time.Duration(r.Header().Ttl)*time.Second, minHeld) + heldBeyond
		for _, rule := range rules {
			a.hold(addr, holding{rule, now.Add(held)}, now)
		}
	}
}

// rulesFor returns the rules whose names are in the chain.
func (a *answers) rulesFor(chain []string) []Destination {
	var rules []Destination
	now := a.live.egress(a.egress)
	for _, d := range now.Deny {
		if slices.ContainsFunc(chain, d.containsName) {
			rules = append(rules, d)
		}
	}
	for _, d := range now.Allow {
		if d.containsName(chain[0]) && !slices.Contains(rules, d) {
			rules = append(rules, d)
		}
	}
	return rules
}

// hold notes one holding, in place of the next one to end if there are too many.
func (a *answers) hold(addr netip.Addr, h holding, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := a.held[addr]
	if i := slices.IndexFunc(all, func(o holding) bool { return o.rule == h.rule }); i >= 0 {
		if h.until.After(all[i].until) {
			all[i].until = h.until
		}
		return
	}
	if all == nil && len(a.held) >= maxAnswered {
		a.makeRoom(now)
	}
	a.held[addr] = append(all, h)
}

// makeRoom drops what has ended, and if nothing has, the address that is the next
// to end.
func (a *answers) makeRoom(now time.Time) {
	var next netip.Addr
	var soonest time.Time
	for addr, all := range a.held {
		last := slices.MaxFunc(all, func(x, y holding) int { return x.until.Compare(y.until) }).until
		if !now.Before(last) {
			delete(a.held, addr)
			continue
		}
		if soonest.IsZero() || last.Before(soonest) {
			next, soonest = addr, last
		}
	}
	if len(a.held) >= maxAnswered {
		delete(a.held, next)
		a.evicted++
	}
}

// size is how many addresses are remembered, and how many had to make room.
func (a *answers) size() (held int, evicted uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.held), a.evicted
}

// chainOf returns the name that was asked for and those that the answer says it
// is an alias of, in order. It has at least one name.
func chainOf(m *dns.Msg) []string {
	name := canonical(m.Question[0].Name)
	chain := []string{name}
	for len(chain) < maxChain {
		i := slices.IndexFunc(m.Answer, func(r dns.RR) bool {
			_, ok := r.(*dns.CNAME)
			return ok && canonical(r.Header().Name) == name
		})
		if i < 0 {
			break
		}
		name = canonical(m.Answer[i].(*dns.CNAME).Target)
		if slices.Contains(chain, name) {
			break // a loop, which has no address
		}
		chain = append(chain, name)
	}
	return chain
}

// addrOf returns the address of an A or AAAA record.
func addrOf(r dns.RR) (netip.Addr, bool) {
	switch r := r.(type) {
	case *dns.A:
		addr, ok := netip.AddrFromSlice(r.A)
		return addr.Unmap(), ok
	case *dns.AAAA:
		// Not unmapped: such an address is not one of IPv4 on the wire either.
		return netip.AddrFromSlice(r.AAAA.To16())
	}
	return netip.Addr{}, false
}

// canonical is the form that names are compared in.
func canonical(name string) string { return strings.ToLower(dns.Fqdn(name)) }
