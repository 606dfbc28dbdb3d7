package hops

import (
	"fmt"
	"slices"

	"github.com/corridor-enclave/corridor/bench/binaries"
	"github.com/corridor-enclave/corridor/bench/report"
	"github.com/corridor-enclave/corridor/bench/servers"
)

// name is what certificates are for.
const name = "bench.corridor.example"

// generatorHop asks whether the generators are the limit: nothing can be faster
// than a server that does nothing.
func generatorHop() Hop {
	return Hop{
		Name: "generator", About: "is the generator the limit?", Baseline: "null",
		Loads: slices.Concat(requestLoads(16, 128), withGenerator("bombardier", requestLoads(16)), withGenerator("baton", requestLoads(16)), withGenerator("hey", requestLoads(16))),
		Variants: []Variant{
			{"null", false, func(s *Setup) error { return s.serve("null", servers.Null, "", "") }},
			{"app", false, direct},
		},
	}
}

// proxyHop measures reverse proxies in front of one app, all on loopback.
func proxyHop() Hop {
	return Hop{
		Name: "proxy", About: "a reverse proxy and nothing else, plain HTTP", Baseline: "tuned",
		Loads: append(requestLoads(16, 128), openLoad(1000, ""), bodyLoad(64, 16)),
		Variants: []Variant{
			{"direct", false, direct},
			{"corridor", true, func(s *Setup) error { return s.proxy(servers.Corridor) }},
			{"enclave", true, func(s *Setup) error { return s.enclaveAlone("--tls", "off") }},
			{"enclave-silent", true, func(s *Setup) error { return s.enclaveAlone("--tls", "off", "--forward-fields", "none") }},
			{"tuned", false, func(s *Setup) error { return s.proxy(servers.Tuned) }},
			{"default", false, func(s *Setup) error { return s.proxy(servers.Default) }},
			{"relay", false, func(s *Setup) error { return s.proxy(servers.Relay) }},
			{"nginx", false, func(s *Setup) error { return s.nginx("") }},
			{"haproxy", false, func(s *Setup) error { return s.haproxy("") }},
			{"nginx-telling", false, func(s *Setup) error { return s.nginxWith(nginxTelling, "") }},
			{"haproxy-telling", false, func(s *Setup) error { return s.haproxyWith(haproxyTelling, "") }},
		},
	}
}

// tlsHop is proxyHop with TLS on the client's side: on connections that are kept, with
// a handshake for each request, with a session resumed for each, and with HTTP/2.
func tlsHop() Hop {
	return Hop{
		Name: "tls", About: "the same with TLS 1.3", Baseline: "tuned",
		Loads: append(requestLoads(16, 128), openLoad(200, report.NewConnections), openLoad(200, report.Resumed), http2Load(16), http2PageLoad(10, pageBytes)),
		Variants: []Variant{
			{"enclave", true, func(s *Setup) error { return s.enclaveAlone("--fqdn", name) }},
			{"tuned", false, secured(func(s *Setup, cert string) error {
				app, err := s.app(false)
				if err != nil {
					return err
				}
				return s.serve("tuned", servers.Tuned, app, cert)
			})},
			{"nginx", false, secured((*Setup).nginx)},
			{"haproxy", false, secured((*Setup).haproxy)},
		},
	}
}

// secured gives a variant a file with a certificate and its key.
func secured(start func(*Setup, string) error) func(*Setup) error {
	return func(s *Setup) error {
		cert, err := s.certificate()
		if err != nil {
			return err
		}
		return start(s, cert)
	}
}

func (s *Setup) certificate() (string, error) {
	certificate, key, err := servers.SelfSigned(name)
	if err != nil {
		return "", err
	}
	return s.write("certificate.pem", string(certificate)+string(key))
}

// direct is the app with nothing in front.
func direct(s *Setup) error {
	app, err := s.app(false)
	if err != nil {
		return err
	}
	s.running.URL = "http://" + app + smallAnswer
	// There is no subject but the app itself.
	s.running.Accounts[len(s.running.Accounts)-1].Role = report.Subject
	return nil
}

// proxy puts one of bench's own servers in front of an app.
func (s *Setup) proxy(kind servers.Kind) error {
	app, err := s.app(false)
	if err != nil {
		return err
	}
	return s.serve(string(kind), kind, app, "")
}

// serve starts one of bench's own servers, with TLS if it is given a certificate.
func (s *Setup) serve(called string, kind servers.Kind, to, cert string) error {
	socket := s.file(called + "-metrics.sock")
	args := []string{"serve", "--kind", string(kind), "--metrics", socket}
	scheme := "http"
	if to != "" {
		args = append(args, "--to", to)
	}
	if cert != "" {
		args, scheme = append(args, "--cert", cert), "https"
	}
	addr, err := s.bench(called, report.Subject, false, socket, args...)
	s.running.URL = scheme + "://" + addr + smallAnswer
	return err
}

// enclaveAlone starts the sidecar without its link, in front of an app.
func (s *Setup) enclaveAlone(args ...string) error {
	path, err := s.tools.Own(binaries.EnclaveSim)
	if err != nil {
		return err
	}
	app, err := s.app(false)
	if err != nil {
		return err
	}
	socket := s.file("enclave-metrics.sock")
	args = append(args, "--link", "off", "--front", "tcp:127.0.0.1:0", "--app", "http://"+app, "--metrics", socket)
	p, err := s.start(program{name: "enclave-sim", role: report.Subject, path: path, args: args, metrics: socket})
	if err != nil {
		return err
	}
	addr, err := s.listening(p)
	scheme := "https"
	if args[0] == "--tls" {
		scheme = "http"
	}
	s.running.URL = scheme + "://" + addr + smallAnswer
	return err
}

func (s *Setup) nginx(cert string) error { return s.nginxWith(nginxConfig, cert) }

func (s *Setup) haproxy(cert string) error { return s.haproxyWith(haproxyConfig, cert) }

// A configuration makes the file of a server of others.
type configuration func(dir, listen, app, cert string) string

func (s *Setup) nginxWith(config configuration, cert string) error {
	return s.configured("nginx", "nginx-light", config, cert, "-p", s.running.dir, "-e", "stderr", "-c")
}

func (s *Setup) haproxyWith(config configuration, cert string) error {
	return s.configured("haproxy", "haproxy", config, cert, "-db", "-f")
}

// configured starts a server of others with a configuration that is made from the
// addresses; args are in front of that file's name.
func (s *Setup) configured(called, pkg string, config configuration, cert string, args ...string) error {
	path, err := s.tools.Installed(called, pkg)
	if err != nil {
		return err
	}
	app, err := s.app(false)
	if err != nil {
		return err
	}
	listen, err := freeAddress()
	if err != nil {
		return err
	}
	file, err := s.write(called+".conf", config(s.running.dir, listen, app, cert))
	if err != nil {
		return err
	}
	scheme := "http"
	if cert != "" {
		scheme = "https"
	}
	s.running.URL = scheme + "://" + listen + smallAnswer
	_, err = s.start(program{name: called, role: report.Subject, path: path, args: append(args, file), workers: called == "nginx"})
	return err
}

// nginxConfig keeps connections on both sides, which nginx does not by itself. A
// process for each core is its own advice.
func nginxConfig(dir, listen, app, cert string) string { return nginxFile(dir, listen, app, cert, "") }

// nginxTelling has the app told what our proxy tells it, which is work for the app
// too.
func nginxTelling(dir, listen, app, cert string) string {
	return nginxFile(dir, listen, app, cert, `proxy_set_header Host $http_host;
      proxy_set_header Via "1.1 nginx (ABCDEFGHIJKLM)";
      proxy_set_header X-Real-Ip $remote_addr;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Forwarded-Host $http_host;
      proxy_set_header Forwarded 'for=$remote_addr;host="$http_host";proto=$scheme';
      proxy_set_header X-Request-Id $request_id;`)
}

func nginxFile(dir, listen, app, cert, fields string) string {
	tls := ""
	if cert != "" {
		listen += " ssl http2"
		tls = fmt.Sprintf("ssl_certificate %s; ssl_certificate_key %s; ssl_protocols TLSv1.2 TLSv1.3;", cert, cert)
	}
	return fmt.Sprintf(`daemon off;
worker_processes auto;
pid %[1]s/nginx.pid;
error_log stderr warn;
events { worker_connections 4096; }
http {
  access_log off;
  client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fastcgi;
  uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
  keepalive_requests 1000000000;
  upstream app { server %[3]s; keepalive 512; keepalive_requests 1000000000; }
  server {
    listen %[2]s;
    %[4]s
    location / {
      proxy_pass http://app;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header X-Forwarded-For $remote_addr;
      %[5]s
    }
  }
}
`, dir, listen, app, tls, fields)
}

func haproxyConfig(_, listen, app, cert string) string { return haproxyFile(listen, app, cert, "") }

// haproxyTelling does as nginxTelling.
func haproxyTelling(_, listen, app, cert string) string {
	return haproxyFile(listen, app, cert, `http-request set-header Via "1.1 haproxy (ABCDEFGHIJKLM)"
  http-request set-header X-Real-Ip %[src]
  http-request set-header X-Forwarded-Proto http
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  http-request set-header Forwarded "for=%[src];host=%[req.hdr(host)];proto=http"
  unique-id-format %{+X}o\ %ci:%cp_%fi:%fp_%Ts_%rt:%pid
  unique-id-header X-Request-Id`)
}

func haproxyFile(listen, app, cert, fields string) string {
	if cert != "" {
		listen += " ssl crt " + cert + " alpn h2,http/1.1"
	}
	return fmt.Sprintf(`global
  maxconn 4096
defaults
  mode http
  maxconn 4096
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  option forwardfor
  http-reuse always
frontend front
  bind %s
  %s
  default_backend back
backend back
  server app %s
`, listen, fields, app)
}
