package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/corridor-enclave/corridor/tapstack"
	"github.com/corridor-enclave/corridor/tapstack/exposition"
)

const (
	// dnsTimeout is how long one resolver may take, and dnsPatience how long all
	// together: the resolver of the C library gives up after five seconds.
	dnsTimeout  = 2 * time.Second
	dnsPatience = 4500 * time.Millisecond
	// maxQueries bounds the queries of one enclave that wait for an answer; more
	// are answered with SERVFAIL at once.
	maxQueries = 256
)

// ownNames are answered here, as gvproxy answers them. Other names below the
// same two zones do not exist.
func ownNames() map[string]netip.Addr {
	return map[string]netip.Addr{
		"gateway.containers.internal.": tapstack.GatewayAddr(),
		"host.containers.internal.":    tapstack.HostAliasAddr(),
		"gateway.docker.internal.":     tapstack.GatewayAddr(),
		"host.docker.internal.":        tapstack.HostAliasAddr(),
	}
}

// ownZones end the names that never leave the host.
func ownZones() []string { return []string{".containers.internal.", ".docker.internal."} }

// A dnsServer answers on port 53 of the gateway, UDP and TCP. It forwards
// queries as they are, AAAA included: whether the enclave can use an answer is
// for the enclave to judge. What egress rules say about names it applies to
// queries, and notes for flows.
type dnsServer struct {
	ctx       context.Context // of the network
	egress    Egress
	live      live // stronger than egress
	answers   *answers
	refusals  *refusals
	resolvers *resolvers
	cache     *dnsCache
	counts    dnsCounters
	slots     chan struct{}
	servers   []*dns.Server
	running   sync.WaitGroup
}

// newDNSServer starts to answer.
func newDNSServer(n *network, r *resolvers) (*dnsServer, error) {
	packets, err := n.stack.ListenUDP(53)
	if err != nil {
		return nil, err
	}
	listener, err := n.stack.ListenTCP(53)
	if err != nil {
		packets.Close()
		return nil, err
	}
	d := &dnsServer{
		ctx: n.ctx, egress: n.policy.egress, live: n.policy.live, answers: n.policy.answers, refusals: n.refusals,
		counts:    dnsCounters{forwarded: exposition.NewDurations()},
		resolvers: r, cache: newDNSCache(), slots: make(chan struct{}, maxQueries),
	}
	var started sync.WaitGroup
	for _, s := range []*dns.Server{{PacketConn: packets, UDPSize: dns.DefaultMsgSize}, {Listener: listener}} {
		s.Handler = dns.HandlerFunc(d.serve)
		started.Add(1)
		s.NotifyStartedFunc = started.Done
		d.servers = append(d.servers, s)
		d.running.Go(func() {
			if err := s.ActivateAndServe(); err != nil {
				n.log.Error("DNS stopped", "err", err)
			}
		})
	}
	started.Wait()
	return d, nil
}

// stats returns the counters of now.
func (d *dnsServer) stats() DNSStats {
	s := DNSStats{
		Queries: d.counts.queries.Load(), Cached: d.counts.cached.Load(), Failed: d.counts.failed.Load(),
		Forwarded: d.counts.forwarded.Snapshot(), Kept: d.cache.len(),
	}
	s.Held, s.Evicted = d.answers.size()
	return s
}

// close stops both servers; queries under way have ended with the network.
func (d *dnsServer) close() {
	for _, s := range d.servers {
		// It fails only for a server that does not run.
		_ = s.Shutdown()
	}
	d.running.Wait()
}

func (d *dnsServer) serve(w dns.ResponseWriter, q *dns.Msg) {
	overTCP := w.RemoteAddr().Network() == "tcp"
	a := d.answer(q, overTCP)
	if !overTCP {
		a.Truncate(answerSize(q))
	}
	// Nobody is left to tell when the enclave does not take its answer.
	_ = w.WriteMsg(a)
}

// answerSize is the largest answer that the asker takes in a datagram (RFC 6891,
// section 6.2.3).
func answerSize(q *dns.Msg) int {
	if o := q.IsEdns0(); o != nil {
		return max(int(o.UDPSize()), dns.MinMsgSize)
	}
	return dns.MinMsgSize
}

// answer never returns nil.
func (d *dnsServer) answer(q *dns.Msg, overTCP bool) *dns.Msg {
	d.counts.queries.Add(1)
	if q.Opcode != dns.OpcodeQuery {
		return failure(q, dns.RcodeNotImplemented)
	}
	if len(q.Question) != 1 {
		return failure(q, dns.RcodeFormatError)
	}
	question := q.Question[0]
	if question.Qtype == dns.TypeAXFR || question.Qtype == dns.TypeIXFR {
		return failure(q, dns.RcodeRefused) // transfers are streams of messages
	}
	if a := ownAnswer(q, question); a != nil {
		return a
	}
	if no := d.live.egress(d.egress).judgeNames([]string{canonical(question.Name)}); no.cause != causeNone {
		return d.refuse(q, no)
	}
	a, err := d.lookUp(q, overTCP)
	if err != nil {
		// Not "no such name": the asker may try again.
		d.counts.failed.Add(1)
		return failure(q, dns.RcodeServerFailure)
	}
	if no := d.live.egress(d.egress).judgeNames(chainOf(a)); no.cause != causeNone {
		return d.refuse(q, no)
	}
	d.answers.learn(a, time.Now())
	a.Id, a.Question = q.Id, q.Question
	return a
}

// refuse answers a query for a name that the enclave may not know of.
func (d *dnsServer) refuse(q *dns.Msg, no refusal) *dns.Msg {
	d.refusals.note("dns", strconv.Quote(q.Question[0].Name), no)
	return failure(q, dns.RcodeRefused)
}

// lookUp answers from the cache, or asks.
func (d *dnsServer) lookUp(q *dns.Msg, overTCP bool) (*dns.Msg, error) {
	if a := d.cache.get(q, time.Now()); a != nil {
		d.counts.cached.Add(1)
		return a, nil
	}
	select {
	case d.slots <- struct{}{}:
		defer func() { <-d.slots }()
	default:
		return nil, errors.New("gateway: too many queries wait")
	}
	start := time.Now()
	a, err := d.forward(q, overTCP)
	if err != nil {
		return nil, err
	}
	d.counts.forwarded.ObserveDuration(time.Since(start))
	d.cache.put(q, a, time.Now())
	return a, nil
}

func failure(q *dns.Msg, code int) *dns.Msg {
	a := new(dns.Msg).SetRcode(q, code)
	a.RecursionAvailable = true
	return a
}

// ownAnswer answers for the zones of our own; nil means that the name is in none.
func ownAnswer(q *dns.Msg, question dns.Question) *dns.Msg {
	name := strings.ToLower(question.Name)
	for _, zone := range ownZones() {
		if !strings.HasSuffix(name, zone) {
			continue
		}
		addr, ok := ownNames()[name]
		if !ok {
			return failure(q, dns.RcodeNameError)
		}
		a := failure(q, dns.RcodeSuccess)
		if question.Qtype == dns.TypeA {
			header := dns.RR_Header{Name: question.Name, Rrtype: dns.TypeA, Class: dns.ClassINET}
			a.Answer = []dns.RR{&dns.A{Hdr: header, A: addr.AsSlice()}}
		}
		return a // for other types: the name exists, without data
	}
	return nil
}

// forward asks the host's resolvers in order until one answers.
func (d *dnsServer) forward(q *dns.Msg, overTCP bool) (*dns.Msg, error) {
	servers, err := d.resolvers.list()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(d.ctx, dnsPatience)
	defer cancel()
	err = errors.New("gateway: no resolver")
	for _, server := range servers {
		var a *dns.Msg
		if a, err = ask(ctx, server, q, overTCP); err == nil {
			return a, nil
		}
	}
	return nil, err
}

// ask sends the query with an identifier and from a port that cannot be guessed,
// and again over TCP if the answer does not fit.
func ask(ctx context.Context, server netip.AddrPort, q *dns.Msg, overTCP bool) (*dns.Msg, error) {
	query := q.Copy()
	query.Id = dns.Id()
	c := &dns.Client{Net: "udp", Timeout: dnsTimeout}
	if overTCP {
		c.Net = "tcp"
	}
	a, _, err := c.ExchangeContext(ctx, query, server.String())
	if err == nil && a.Truncated && !overTCP {
		c.Net = "tcp"
		a, _, err = c.ExchangeContext(ctx, query, server.String())
	}
	if err != nil {
		return nil, fmt.Errorf("gateway: ask %s: %w", server, err)
	}
	if len(a.Question) != 1 || !strings.EqualFold(a.Question[0].Name, q.Question[0].Name) || a.Question[0].Qtype != q.Question[0].Qtype {
		return nil, fmt.Errorf("gateway: ask %s: it answered another question", server)
	}
	return a, nil
}
