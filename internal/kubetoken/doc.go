// Package kubetoken owns the verification of Kubernetes' ServiceAccount tokens:
// JSON Web Tokens (RFC 7519) that a cluster's API server signs and the kubelet
// projects into a pod for one audience. What such a token proves is which pod
// its bearer runs in:
//
//	{
//	  "iss": "https://kubernetes.default.svc.cluster.local",
//	  "aud": ["culvert"],
//	  "sub": "system:serviceaccount:shop:api",
//	  "iat": 1764070000, "nbf": 1764070000, "exp": 1764073600,
//	  "kubernetes.io": {
//	    "namespace": "shop",
//	    "serviceaccount": {"name": "api", "uid": "…"},
//	    "pod": {"name": "api-7d9c5-x2x8v", "uid": "…"}
//	  }
//	}
//
// The API server is not asked about each token: its signature is checked with
// the issuer's public keys, which come from OpenID Connect discovery, from the
// URL of a JSON Web Key Set (RFC 7517), or from a file. [Verifier.Run] reads
// them again and again, so that keys come and go with the cluster's, and is the
// only one to do so: what a token says can make it happen sooner, but not more
// often than once in ten seconds.
//
// So that a token proves what it seems to, it has to be in the compact form,
// signed with RSA or ECDSA, by a key of the issuer that the token names; it has
// to be of that issuer to the byte, for the one audience and for no other, to
// have begun and not to have ended; and its claims about the service account
// have to agree.
//
// Nothing that the package returns or reports shows a token.
//
// It does not find out whether the pod still runs: a token holds until it
// expires, as does the right of whoever has copied it. It does not limit who
// asks how often, issues nothing and does not log.
package kubetoken
