package main

import (
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"unicode/utf16"
)

// The object identifiers of a trust store: RFC 7292 and RFC 2985, and Oracle's, without which Java takes a certificate for part of
// somebody's chain and trusts it for nothing.
var (
	oidData           = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
	oidCertBag        = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 10, 1, 3}
	oidX509           = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 22, 1}
	oidFriendlyName   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 20}
	oidTrustedKeyUsed = asn1.ObjectIdentifier{2, 16, 840, 1, 113894, 746875, 1, 1}
	oidAnyUse         = asn1.ObjectIdentifier{2, 5, 29, 37, 0}
)

type pfx struct {
	Version  int
	AuthSafe contentInfo
}

type contentInfo struct {
	Type    asn1.ObjectIdentifier
	Content asn1.RawValue
}

type safeBag struct {
	ID         asn1.ObjectIdentifier
	Value      asn1.RawValue
	Attributes []bagAttribute `asn1:"set"`
}

type bagAttribute struct {
	ID     asn1.ObjectIdentifier
	Values []asn1.RawValue `asn1:"set"`
}

type certBag struct {
	ID   asn1.ObjectIdentifier
	Data []byte `asn1:"tag:0,explicit"`
}

// trustStore is a PKCS #12 file (RFC 7292) of certificates that Java trusts. It has no password, and no MAC: there is nothing secret in
// it, and who can write the file could write the MAC as well.
func trustStore(certs []*x509.Certificate) ([]byte, error) {
	var bags []safeBag
	for i, c := range certs {
		bag, err := asn1.Marshal(certBag{oidX509, c.Raw})
		if err != nil {
			return nil, err
		}
		use, err := asn1.Marshal(oidAnyUse)
		if err != nil {
			return nil, err
		}
		var name []byte
		for _, u := range utf16.Encode([]rune(fmt.Sprintf("leaf%d", i))) {
			name = append(name, byte(u>>8), byte(u))
		}
		bags = append(bags, safeBag{oidCertBag, explicit(bag), []bagAttribute{
			{oidFriendlyName, []asn1.RawValue{{Tag: asn1.TagBMPString, Bytes: name}}},
			{oidTrustedKeyUsed, []asn1.RawValue{{FullBytes: use}}},
		}})
	}
	contents, err := asn1.Marshal(bags)
	if err != nil {
		return nil, err
	}
	inner, err := data(contents)
	if err != nil {
		return nil, err
	}
	safe, err := asn1.Marshal([]contentInfo{inner})
	if err != nil {
		return nil, err
	}
	outer, err := data(safe)
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(pfx{3, outer})
}

func explicit(der []byte) asn1.RawValue {
	return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: der}
}

func data(content []byte) (contentInfo, error) {
	octets, err := asn1.Marshal(content)
	return contentInfo{oidData, explicit(octets)}, err
}
