package policy

// shape describes one place of the policy file. The parser takes the known and the required keys from here, and the JSON
// Schema is written from here, so that neither can say what the other does not.
type shape struct {
	doc     string
	kind    kind
	choices []string // of a word
	keys    []key    // of a map
	elem    *shape   // of a list, or of the values of a map with the writer's own keys
	forms   []*shape // of a value that may be written in several ways
	// A map that also has the components of a TCB for keys, each with its floor.
	components bool
}

type kind uint8

const (
	isText kind = iota
	isWord
	isHex
	isNumber
	isBool
	isDate
	isDuration
	isMap
	isList
	isOwnMap // a map whose keys are the writer's
	isForms
)

type key struct {
	name     string
	required bool
	shape    *shape
}

func must(name string, s *shape) key { return key{name, true, s} }
func may(name string, s *shape) key  { return key{name, false, s} }

func text(doc string) *shape { return &shape{doc: doc, kind: isText} }
func word(doc string, choices ...string) *shape {
	return &shape{doc: doc, kind: isWord, choices: choices}
}
func hexBytes(doc string) *shape            { return &shape{doc: doc, kind: isHex} }
func number(doc string) *shape              { return &shape{doc: doc, kind: isNumber} }
func listOf(doc string, elem *shape) *shape { return &shape{doc: doc, kind: isList, elem: elem} }

func ownMap(doc string, elem *shape) *shape     { return &shape{doc: doc, kind: isOwnMap, elem: elem} }
func mapOf(doc string, keys ...key) *shape      { return &shape{doc: doc, kind: isMap, keys: keys} }
func either(doc string, forms ...*shape) *shape { return &shape{doc: doc, kind: isForms, forms: forms} }

func (s *shape) and(keys ...key) *shape {
	c := *s
	c.keys = append(append([]key(nil), s.keys...), keys...)
	return &c
}
func (s *shape) with(keys []key) *shape { return s.and(keys...) }
func (s *shape) withComponents() *shape { c := *s; c.components = true; return &c }

// orMap is a value that is written bare, or as a map with terms.
func orMap(doc string, bare *shape, name string) *shape {
	return either(doc, bare, mapOf(doc, must(name, bare)).with(termKeys))
}

// The words of the vendors and of this file.
var (
	tees     = []string{"snp", "tdx", "sgx", "nitro", "cca", "tpm"}
	onOff    = []string{"on", "off"}
	effects  = []string{"deny", "require", "warn"}
	statuses = []string{ // for a TCB, best first. Revoked is not one of them: no policy can accept it.
		"UpToDate", "SWHardeningNeeded", "ConfigurationNeeded", "ConfigurationAndSWHardeningNeeded",
		"OutOfDate", "OutOfDateConfigurationNeeded", "TDRelaunchAdvised", "TDRelaunchAdvisedConfigurationNeeded",
	}
	levels = []string{"session", "nonce", "key", "pinned", "none"}
)

// termKeys are what every rule can carry.
var termKeys = []key{
	may("because", text("why the rule is there, such as an advisory")),
	may("from", &shape{doc: "first day on which the rule is in force", kind: isDate}),
	may("until", &shape{doc: "first day on which it no longer is", kind: isDate}),
	may("shadow", &shape{doc: "report what the rule would do, and do not act", kind: isBool}),
}

var (
	shapePlatform = mapOf("a pattern of platforms",
		must("vendor", text("amd, intel, aws, arm, tcg, or sim")),
		may("tee", word("the TEE", tees...)),
		may("generation", text(`a generation, or "milan+" for it and all later ones`)),
		may("product", text("the vendor's product name")),
		may("stepping", text("such as B1")),
		may("fmspc", listOf("Intel's platform families", hexBytes("6 bytes"))),
		may("chip_ids", listOf("machines, by AMD's chip id", hexBytes("8 or 64 bytes"))),
		may("ppids", listOf("machines, by Intel's PPID", hexBytes("16 bytes"))),
		may("csp", listOf(`cloud providers that a VLEK was issued to; "*" for any`, text("a provider"))),
		may("root", text(`of a simulated platform: "sha256:" and hex`)),
	).with(termKeys)
	shapePlatforms = listOf("patterns of platforms", either("a pattern", text(`"vendor generation", "vendor generation+", "vendor tee" or "vendor *"`), shapePlatform))

	shapeFloor    = orMap("the least security version number", number("the least number"), "min")
	shapeFirmware = mapOf("what firmware has to be: floors of TCB components, and",
		may("status", orMap("the vendor's words for a TCB that are accepted; only UpToDate if absent", listOf("statuses", word("a status", statuses...)), "any_of")),
		may("date", orMap("the TCB level was published on this day or later", &shape{doc: "a day", kind: isDate}, "min")),
		may("evaluation", orMap("the collateral has this evaluation number or a later one", either("a number", number("the least number"), text(`">=" and the number`)), "min")),
		may("advisories_deny", listOf("advisories that refuse", text("such as INTEL-SA-00615"))),
		may("advisories_tolerate", listOf("the only advisories that are tolerated", text("such as INTEL-SA-00615"))),
		may("bits", ownMap("platform bits, such as smt", orMap("on or off", word("the bit", onOff...), "is"))),
	).withComponents()
	shapeScope = shapeFirmware.and(
		must("platforms", shapePlatforms),
		may("any", &shape{doc: "true: these platforms need no floor", kind: isBool}),
	).with(termKeys)
	shapeTCB = shapeFirmware.and(may("per", listOf("further demands on some platforms; with this list a platform that is in none of its entries is refused", shapeScope)))

	shapeReference = either("a reference value", hexBytes("the value"), mapOf("a value with a name",
		must("value", hexBytes("the value")), may("name", text("what it is"))).with(termKeys))
	shapeReferences = mapOf("accepted values", must("any_of", listOf("values", shapeReference)))
	shapeSet        = mapOf("registers that belong together, such as those of one release",
		must("name", text("what it is")), must("registers", ownMap("every one of them has to be as it is here", hexBytes("the value")))).with(termKeys)
	shapeFile     = mapOf("reference values in a file beside this one: JSON, a release manifest, or CoRIM", must("file", text("the file")))
	shapeWorkload = mapOf("the software",
		may("measurement", either("the launch measurement: this or sets is required", word("any software", "any"), shapeReferences, shapeFile)),
		may("sets", either("accepted sets of registers: this or measurement is required", listOf("sets", shapeSet), shapeFile)),
		may("registers", ownMap("further registers, such as rtmr1 or pcr7", shapeReferences)),
		may("numbers", ownMap("signed numbers, such as isv_svn", either("a number", number("exactly"), mapOf("a bound", may("is", number("exactly")), may("min", number("at least"))).with(termKeys)))),
		may("config", mapOf("digest of the measured configuration", must("any_of", listOf("digests", hexBytes("32 bytes"))))),
		must("debug", orMap("debugging", word("off, or any", "off", "any"), "is")),
		may("migration", orMap("migration agents", word("off, or any", "off", "any"), "is")),
		may("privilege", orMap("the lowest privilege level that may have requested the evidence; 0 if absent", number("0 to 3"), "max")),
	)
	shapeRule = mapOf("a rule in CEL",
		must("when", text("an expression that is true or false")),
		must("effect", word("what happens when it is true: deny, warn; or require: when it is false, refuse", effects...)),
		may("name", text("what it is called in a verdict")),
	).with(termKeys)
	shapeDurations = mapOf("how old things may be",
		may("evidence", &shape{doc: "such as 10m; 24h if absent", kind: isDuration}),
		may("undated", &shape{doc: "true: evidence that does not tell when it was made is taken, which a recorded one is as well", kind: isBool}),
		may("endorsements", &shape{doc: "such as 30d; 30d if absent", kind: isDuration}),
		may("reconnect", either("the evidence of an earlier session, of which a connection proves a secret instead of showing evidence; 10m if absent, and never more than evidence",
			&shape{doc: "such as 10m", kind: isDuration}, word("every connection shows evidence", "off"))))
	shapePolicy = mapOf("An appraisal policy of jurat. Deny wins; what is not allowed is refused; unknown keys are errors.",
		must("policy", text("the policy's name")),
		may("floor", text("file of a policy that has to accept as well")),
		must("platforms", mapOf("the hardware", must("allow", shapePlatforms), may("deny", shapePlatforms))),
		may("tcb", shapeTCB),
		must("workload", shapeWorkload),
		may("binding", orMap("the least level at which evidence is bound; session if absent", word("the level", levels...), "min")),
		may("freshness", shapeDurations),
		may("revocation", orMap("required, or unchecked; required if absent", word("the word", "required", "unchecked"), "is")),
		may("rules", listOf("rules for what the rest of the file cannot say", shapeRule)),
	)
)
