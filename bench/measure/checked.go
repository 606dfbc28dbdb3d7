package measure

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/corridor-enclave/corridor/bench/report"
	"github.com/corridor-enclave/corridor/bench/sampleapp"
)

// checkedBlock is how much of the app's pattern is asked for, and checked, at a time.
const checkedBlock = 4 << 20

// checked has the app send its pattern over and over, and compares the checksum of
// each block: bulk of which every byte is known to have arrived in its place.
func checked(ctx context.Context, c cell, duration time.Duration, s *report.Sample) error {
	source, err := url.Parse(c.running.URL)
	if err != nil {
		return err
	}
	source.Path, source.RawQuery = "/bytes", fmt.Sprintf("n=%d", checkedBlock)
	want := sampleapp.PatternSHA256(checkedBlock)
	var blocks atomic.Int64
	began := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	for range c.result.Load.Connections {
		g.Go(func() error {
			// What is measured is where the time goes, not who answers.
			transport := &http.Transport{MaxConnsPerHost: 1, DisableCompression: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
			defer transport.CloseIdleConnections()
			client := &http.Client{Transport: transport}
			for time.Since(began) < duration {
				if err := checkBlock(ctx, client, source.String(), want); err != nil {
					return err
				}
				blocks.Add(1)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	s.Seconds = time.Since(began).Seconds()
	s.Bytes = blocks.Load() * checkedBlock
	s.Sent, s.OK = blocks.Load(), blocks.Load()
	s.Values = map[report.Metric]float64{report.Throughput: float64(s.Bytes) * 8 / bitsPerOperation / s.Seconds}
	return nil
}

func checkBlock(ctx context.Context, client *http.Client, source, want string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, source, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, resp.Body)
	if err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); resp.StatusCode != http.StatusOK || got != want {
		return fmt.Errorf("measure: %s: %d bytes with SHA-256 %s, want %d with %s", resp.Status, n, got, checkedBlock, want)
	}
	return nil
}
