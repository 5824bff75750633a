package connect

import (
	"encoding/binary"
	"net/netip"

	"github.com/jurat-tls/jurat/attest"
)

// Methods of RFC 1928 section 3.
const (
	noAuthentication = 0
	userPassword     = 2
	noneAcceptable   = 0xff
)

// Replies of RFC 1928 section 6.
const (
	generalFailure       = 1
	notAllowed           = 2
	networkUnreachable   = 3
	hostUnreachable      = 4
	connectionRefused    = 5
	commandNotSupported  = 7
	addressNotSupported  = 8
	socks4RequestRefused = 91
)

func (why Reason) socks5() byte {
	switch why {
	case Forbidden, NotAcceptable:
		return notAllowed
	case NetUnreachable:
		return networkUnreachable
	case Unreachable:
		return hostUnreachable
	case NobodyListens:
		return connectionRefused
	}
	return generalFailure
}

// socks5Reply is a reply without an address that the proxy is bound to: whoever it connects by is nothing that the client
// could use.
func socks5Reply(code byte) []byte { return []byte{5, code, 0, 1, 0, 0, 0, 0, 0, 0} }

func socks4Refusal() []byte { return []byte{0, socks4RequestRefused, 0, 0, 0, 0, 0, 0} }

// socks5 reads from the choice of a method to the request.
func (n *negotiation) socks5() error {
	method, err := n.method()
	if err != nil {
		return err
	}
	if _, err := n.conn.Write([]byte{5, method}); err != nil {
		return err
	}
	if method == userPassword {
		if err := n.password(); err != nil {
			return err
		}
	}
	if err := n.need(4); err != nil {
		return err
	}
	head := n.take(4)
	switch {
	case head[0] != 5 || head[2] != 0:
		return misread("the request is not one of SOCKS5", socks5Reply(generalFailure))
	case head[1] != 1:
		return misread("a command of SOCKS5 other than CONNECT", socks5Reply(commandNotSupported))
	}
	return n.address(head[3])
}

// method chooses how the client has to prove who it is.
func (n *negotiation) method() (byte, error) {
	refusal := []byte{5, noneAcceptable}
	if err := n.need(2); err != nil {
		return 0, err
	}
	count := int(n.take(2)[1])
	if err := n.need(count); err != nil {
		return 0, err
	}
	want := byte(noAuthentication)
	if n.users != nil {
		want = userPassword
	}
	for _, m := range n.take(count) {
		if m == want {
			return want, nil
		}
	}
	if n.users != nil {
		return 0, fault{code: attest.CodeProxyCredentials, reason: "the client offers no password", reply: refusal}
	}
	return 0, misread("the client insists on a method of authentication that the proxy has not", refusal)
}

// password is RFC 1929.
func (n *negotiation) password() error {
	refusal := []byte{1, 1}
	if err := n.need(2); err != nil {
		return err
	}
	head := n.take(2)
	user := int(head[1])
	if head[0] != 1 {
		return misread("the user and password are not those of RFC 1929", refusal)
	}
	if err := n.need(user + 1); err != nil {
		return err
	}
	name := string(n.take(user))
	length := int(n.take(1)[0])
	if err := n.need(length); err != nil {
		return err
	}
	if !n.users(name, string(n.take(length))) {
		return fault{code: attest.CodeProxyCredentials, reason: "another user or password", reply: refusal}
	}
	_, err := n.conn.Write([]byte{1, 0})
	return err
}

// address reads the target, of a type in RFC 1928 section 5.
func (n *negotiation) address(kind byte) error {
	length := 0
	switch kind {
	case 1:
		length = 4
	case 4:
		length = 16
	case 3:
		if err := n.need(1); err != nil {
			return err
		}
		length = int(n.take(1)[0])
	default:
		return misread("an address of a type that SOCKS5 does not have", socks5Reply(addressNotSupported))
	}
	if err := n.need(length + 2); err != nil {
		return err
	}
	raw, port := n.take(length), binary.BigEndian.Uint16(n.take(2))
	var host string
	var err error
	if kind == 3 {
		host, err = Host(string(raw))
	} else {
		ip, _ := netip.AddrFromSlice(raw)
		host, err = address(ip)
	}
	if err == nil {
		n.target, err = target(host, port)
	}
	if err != nil {
		return misread(err.Error(), socks5Reply(generalFailure))
	}
	return nil
}
