package sidecar

import "context"

// beginEntropy comes before the first key is made. What cannot be seeded ends the
// sidecar: its keys might be guessed, and nobody would notice.
func (s *Sidecar) beginEntropy(ctx context.Context) error {
	e, err := s.session.EnsureEntropy(ctx, s.cfg.Pool)
	if err != nil {
		return err
	}
	if e.Bits > 0 {
		s.cfg.Log.Info("the kernel was given random numbers of the security module", "bits", e.Bits, "hardware generator", e.Source)
	}
	return nil
}
