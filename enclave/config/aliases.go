package config

import (
	"net"
	"strings"

	"github.com/kballard/go-shellquote"
)

// An alias is a flag of nitriding-daemon that means the same here.
type alias struct {
	theirs, ours string
	convert      func(string) string // nil keeps the value
}

// nitridingAliases lists what a command line written for nitriding may keep:
//
//	theirs               ours                                  value
//	-fqdn                --fqdn                                same name
//	-wait-for-app        --wait-for-app                        same name
//	-appwebsrv URL       --app URL
//	-appcmd "A B"        --app-cmd "A B"                       split on each space, quotes are no quotes
//	-appurl URL          --source-url URL
//	-ext-pub-port N      --front tcp::N
//	-intport N           --app-api tcp:127.0.0.1:N             and no unix socket
//	-host-proxy-port N   --link-port N
//
// Its other flags mean things that are done differently here, or not at all, so
// they are unknown instead of silently ignored.
func nitridingAliases() []alias {
	return []alias{
		{theirs: "appwebsrv", ours: "app"},
		{theirs: "appcmd", ours: "app-cmd", convert: quoteWords},
		{theirs: "appurl", ours: "source-url"},
		{theirs: "ext-pub-port", ours: "front", convert: func(v string) string { return "tcp::" + v }},
		{theirs: "intport", ours: "app-api", convert: func(v string) string { return "tcp:" + net.JoinHostPort("127.0.0.1", v) }},
		{theirs: "host-proxy-port", ours: "link-port"},
	}
}

// quoteWords writes nitriding's command, which it splits on single spaces and
// nothing else, in the quoting of a shell.
func quoteWords(v string) string { return shellquote.Join(strings.Split(v, " ")...) }
