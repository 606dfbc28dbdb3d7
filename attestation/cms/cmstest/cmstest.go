// Package cmstest closes envelopes as key services do, for tests. Package cms opens
// them.
package cmstest

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
)

// Seal returns plaintext in an envelope for the key: indefinite lengths on the
// outside, definite ones inside, and the ciphertext in parts of so many bytes, as
// AWS KMS writes it. With no parts, which is 0, all is of definite length.
func Seal(key *rsa.PublicKey, plaintext []byte, parts int) ([]byte, error) {
	contentKey, iv := make([]byte, 32), make([]byte, aes.BlockSize)
	rand.Read(contentKey) // never fails: it ends the program rather than return
	rand.Read(iv)
	encryptedKey, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, key, contentKey, nil)
	if err != nil {
		return nil, err
	}
	spki, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, err
	}
	keyName := sha256.Sum256(spki)
	block, err := aes.NewCipher(contentKey)
	if err != nil {
		return nil, err
	}
	ciphertext := pad(plaintext)
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(ciphertext, ciphertext)

	sha := sequence(oid("\x60\x86\x48\x01\x65\x03\x04\x02\x01"), tlv(0x05))
	oaep := sequence(oid("\x2a\x86\x48\x86\xf7\x0d\x01\x01\x07"),
		sequence(tlv(0xa0, sha), tlv(0xa1, sequence(oid("\x2a\x86\x48\x86\xf7\x0d\x01\x01\x08"), sha))))
	recipient := sequence(tlv(0x02, []byte{2}), tlv(0x80, keyName[:]), oaep, tlv(0x04, encryptedKey))
	outer, content := tlv, tlv(0x80, ciphertext)
	if parts > 0 {
		outer, content = open, nil
		for len(ciphertext) > 0 {
			n := min(parts, len(ciphertext))
			content = append(content, tlv(0x04, ciphertext[:n])...)
			ciphertext = ciphertext[n:]
		}
		content = open(0xa0, content)
	}
	encryption := sequence(oid("\x60\x86\x48\x01\x65\x03\x04\x01\x2a"), tlv(0x04, iv))
	enveloped := outer(0x30, tlv(0x02, []byte{2}), tlv(0x31, recipient),
		outer(0x30, oid("\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01"), encryption, content))
	return outer(0x30, oid("\x2a\x86\x48\x86\xf7\x0d\x01\x07\x03"), outer(0xa0, enveloped)), nil
}

func pad(plaintext []byte) []byte {
	n := aes.BlockSize - len(plaintext)%aes.BlockSize
	padded := append([]byte(nil), plaintext...)
	for range n {
		padded = append(padded, byte(n))
	}
	return padded
}

func oid(content string) []byte { return tlv(0x06, []byte(content)) }

func sequence(parts ...[]byte) []byte { return tlv(0x30, parts...) }

// tlv is an element of definite length.
func tlv(tag byte, parts ...[]byte) []byte {
	var content []byte
	for _, p := range parts {
		content = append(content, p...)
	}
	b := []byte{tag}
	switch n := len(content); {
	case n < 0x80:
		b = append(b, byte(n))
	case n < 0x100:
		b = append(b, 0x81, byte(n))
	default:
		b = append(b, 0x82, byte(n>>8), byte(n))
	}
	return append(b, content...)
}

// open is an element of indefinite length.
func open(tag byte, parts ...[]byte) []byte {
	b := []byte{tag, 0x80}
	for _, p := range parts {
		b = append(b, p...)
	}
	return append(b, 0, 0)
}
