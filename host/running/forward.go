package running

import (
	"fmt"
	"net"

	"github.com/corridor-enclave/corridor/host/config"
	"github.com/corridor-enclave/corridor/host/publish"
	"github.com/corridor-enclave/corridor/host/route"
)

// A Forwarder publishes one port at a time, as gvproxy's API has it, by changes of
// the configuration.
type Forwarder struct {
	*publish.Publisher
	Host *Host
	By   string // who, for the log
}

// Add publishes a port. The error is publish.ErrPublished, or as that of Apply.
func (f Forwarder) Add(s publish.Spec) (net.Addr, error) {
	if _, taken := f.published(s.Local); taken {
		return nil, fmt.Errorf("%w: %s", publish.ErrPublished, s.Local)
	}
	result, err := f.Host.Apply(Request{By: f.By}, []Op{{Do: Add, Setting: "publish", Values: []string{s.String()}}})
	if err != nil {
		return nil, err
	}
	for _, o := range result.Changes {
		if o.Do == Add && len(o.Values) == 1 {
			s, err = publish.ParseSpec(o.Values[0])
		}
	}
	if err != nil {
		return nil, err
	}
	return net.ResolveTCPAddr("tcp", s.Local)
}

// Remove unpublishes a port, with its routes. The error is publish.ErrNotPublished,
// or as that of Apply.
func (f Forwarder) Remove(local string) error {
	value, ok := f.published(local)
	if !ok {
		return fmt.Errorf("%w: %s", publish.ErrNotPublished, local)
	}
	ops := []Op{{Do: Remove, Setting: "publish", Values: []string{value}}}
	for _, v := range f.Host.State().Document["route"] {
		if r, err := route.Parse(v); err == nil && r.Local == local {
			ops = append(ops, Op{Do: Remove, Setting: "route", Values: []string{v}})
		}
	}
	_, err := f.Host.Apply(Request{By: f.By}, ops)
	return err
}

// published returns how the configuration says a published address.
func (f Forwarder) published(local string) (string, bool) {
	return publishedAt(f.Host.State().Document, local)
}

func publishedAt(d config.Document, local string) (string, bool) {
	for _, value := range d["publish"] {
		if s, err := publish.ParseSpec(value); err == nil && s.Local == local {
			return value, true
		}
	}
	return "", false
}
