"""Plots of the synthetic stories, as text with choices.

`[a|b|c]` is a choice (choices can be nested), `{slot}` is a word of the scene. hero: {hero} {hkind} {trait} {he} {him}
{his}; friend: {friend} {fkind} {fhe} {fhim} {fhis}; third character: {other} {okind} {ohe} {ohim} {ohis}. Articles
("a" or "an") and capital letters are corrected later.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Plot:
    """One kind of story: topics under which a user can request it, and its text."""

    topics: tuple[str, ...]
    text: str


OPENING = """[[Once upon a time, there was|Once upon a time, there lived|Once there was|Long ago, there was|There was
once|One day, there was] a {trait} {hkind}
 [named|called|named] {hero}. [{he} lived in {home}.|{hero} lived in {home} with {his} {elder}.|{he} lived in {home}
and had many friends.|{hero} lived in {home} and loved to play outside.|]
|{hero} was a {trait} {hkind} who lived in {home}.|In {home}, there lived a {trait} {hkind}. [{his} name was
{hero}.|Everyone called {him} {hero}.]
|Once upon a time, in {home}, there lived a {hkind} named {hero}. {hero} was very {trait}.
|[One {weather} day|One {weather} morning], a {trait} {hkind} named {hero} [woke up early|looked out of the
window|went outside to play|was sitting in the sun].]"""

DAY = """[one day|one {weather} day|one {weather} morning|one {weather} afternoon|the next day|one evening|early one
morning]"""
SOON = "[soon|then|a little later|after a while|later that day]"
ENDING = """[From that day on, {hero} and {friend} were [best friends|good friends|always together].|They played
together until the sun went down.|
{hero} went to bed with a big smile that night.|That night, {hero} told {his} {elder} all about it.|And they all
lived happily ever after.|
{hero} never forgot that day.|{hero} and {friend} laughed and hugged each other.|It was the best day ever.|{hero}
felt warm and happy inside.|The end.|]"""

PLOTS = (
    Plot(
        (
            "a {hkind} who lost {his} {thing}",
            "a {trait} {hkind} and a lost {thing}",
            "a lost {thing}",
            "{hero} and the lost {thing}",
        ),
        """{hero} had a {look} {thing}. [{he} took it everywhere.|It was a gift from {his} {elder}.|{he} loved it
more than anything.|{he} played with it every day.]
<p> {day}, {hero} could not find the {thing}. {he} looked {hiding1}, but it was not there. {he} looked {hiding2}, but
it was not there [too|either]. {hero} [was very sad|began to cry|sat down and felt sad].
<p> [Just then|Soon|After a while], a {fkind} named {friend} came by. "Why are you [so sad|crying], {hero}?" asked
{friend}.
 "I lost my {thing}," said {hero}. "[I looked everywhere.|I do not know where it is.|I miss it so much.]"
 "[Do not worry.|Do not be sad.] I will help you [look|find it]," said {friend}.
<p> [They looked and looked.|They searched all day.|They walked slowly and looked at the ground.] [At last|Then],
{friend} looked {hiding3}. "[Look!|Here it is!|I see something!]" {fhe} called. There was the {look} {thing}!
 {hero} [jumped up and down with joy|was so happy|hugged the {thing} tight]. "Thank you, {friend}! You are a good
friend," {he} said. {ending}""",
    ),
    Plot(
        (
            "a {hkind} who found a {thing}",
            "a {hkind} who found something",
            "a {look} {thing}",
            "telling the truth",
            "an honest {hkind}",
        ),
        """{day}, {hero} was walking [to {place}|near {place}|by {place}] when {he} saw something {hiding1}. It was a
{look} {thing}! "[Wow, what a {look} {thing}!|I wonder whose it is.|I want to keep it,]" said {hero}.
<p> {hero} [picked it up and took it home|wanted to keep the {thing}|put the {thing} in {his} pocket]. But then {he}
saw {friend} the {fkind}. {friend} was [crying|looking sad|looking for something]. "I lost my {thing}," {fhe} said.
"Have you seen it?"
<p> {hero} thought for a moment. {he} liked the {thing} very much, but {he} knew it was not {his}. [{he} went to
{friend}. "Is this your {thing}?" {he} asked.|"I found this today. I think it is yours," {he} said.] {hero} gave the
{thing} to {friend}.
 {friend}'s eyes [lit up|became big and bright]. "Yes! Thank you for telling the truth," said {friend}. "[Do you want
to play with it with me?|Now we can share it!]"
<p> So they played with the {thing} all afternoon. {hero} [learned that being honest feels good|knew that {he} had
done the right thing|was glad that {he} had told the truth]. {ending}""",
    ),
    Plot(
        ("a {hkind} who wanted a {food}", "a {hkind} and a {food}", "sharing", "a {hkind} who learned to share"),
        """{day}, {hero}'s {elder} gave {him} a big {food}. It [smelled so good|looked very yummy|was sweet and
fresh]. {hero} went to {place} to eat it.
<p> On the way, {he} met a {fkind} named {friend}. {friend} looked [tired and hungry|very hungry|at the {food} with
big eyes]. "Hello, {hero}. [I have not eaten all day|My tummy is empty]," said {friend}. "[May I have a bite?|Can I
have some of your {food}?]"
<p> {hero} [did not want to share at first|looked at the {food} and then at {friend}|held the {food} tight]. "[It is
mine|But I want to eat it all]," {he} thought. Then {he} saw how sad {friend} was. "[Yes, of course.|Here, take
half.] We can share," said {hero}.
<p> They sat down [under a tree|on the grass|in the sun] and ate the {food} together. [It tasted even better that
way.|It was the best {food} ever.] [The next day, {friend} came back with a {thing}. "This is for you, because you
shared with me," {fhe} said.|"Thank you, {hero}. You are very kind," said {friend}.] {hero} [learned that sharing
makes everything better|was happy that {he} had shared]. {ending}""",
    ),
    Plot(
        (
            "a {hkind} who was afraid of {fear}",
            "a {hkind} who was scared",
            "being brave",
            "a {hkind} and {fear}",
            "a {trait} {hkind} who became brave",
        ),
        """{hero} was afraid of {fear}. {day}, {hero} and {friend} the {fkind} went to {place}. "[Come on,
{hero}!|Let's go!]" said {friend}. But {hero} [stopped|hid behind a tree|began to shake]. "I am scared of {fear},"
{he} said in a small voice.
<p> {friend} did not laugh. "[It is okay to be scared.|Everyone is scared sometimes.] [Take my hand.|I will stay with
you.|We can do it together,]" {fhe} said. {hero} [took a deep breath|closed {his} eyes and counted to three|held
{friend}'s hand]. Step by step, they went on.
<p> [Soon|After a while], {hero} [opened {his} eyes|looked around]. [Nothing bad had happened!|It was not so bad at
all!] "[I did it!|Look at me!] I am not afraid of {fear} [anymore|now]!" {he} [shouted|said with a smile].
 "You are very brave," said {friend}. [{hero}'s {elder} was proud of {him}, too.|They [danced|laughed] all the way
home.] {hero} learned that [being brave means trying even when you are scared|a good friend makes you brave].
{ending}""",
    ),
    Plot(
        ("a {hkind} in the rain", "a rainy day", "a storm", "a {hkind} and a {fkind} in the rain"),
        """{day}, {hero} was playing in {place}. [Suddenly|Then], dark clouds came and it began to rain. [The wind
blew hard.|There was a loud boom.] {hero} got very wet. "[Oh no!|Brrr!] I need a dry place," said {hero}.
<p> {he} ran and ran. {hiding3}, {he} saw a little {fkind} who was [wet and cold|shaking], too. {fhis} name was
{friend}. "[Come with me,|Do not be afraid,]" said {hero}. "[We will find a dry place together.|Two are better than
one.]"
<p> [They found an old barn|They found a small cave|They found a hollow tree] and went inside. It was dry and warm.
{hero} gave {friend} {his} {thing}, and they told each other stories. [They could hear the rain outside: drip, drip,
drip.|{friend} was not scared anymore.]
<p> At last, the rain stopped and the sun came out. "Look, a rainbow!" said {friend}. It was [red, orange, yellow,
green, and blue|big and beautiful]. [They jumped in all the puddles. Splash!|They danced in the wet grass.]
{ending}""",
    ),
    Plot(
        ("a race", "a race between a {hkind} and a {fkind}", "a {hkind} who wanted to win", "a {hkind} who ran a race"),
        """{day}, there was a big race near {place}. {hero} wanted to win [the prize, a {look} {thing}|more than
anything]. {friend} the {fkind} was in the race, too. "[I am the fastest!|I will win!]" said {friend}. {hero} said,
"[I will do my best.|We will see.]"
<p> One, two, three, go! They all ran as fast as they could. {friend} was [far ahead|first]. But then {friend}
[tripped over a stone|fell down] and hurt {fhis} foot. "Ouch!" {fhe} cried.
<p> {hero} could run past and win. But {he} stopped. "[Are you okay?|Let me help you up,]" {he} [asked|said]. {hero}
helped {friend} stand up, and they walked to the end of the race together, [slowly|hand in hand].
<p> [They were the last ones|They did not win], but everyone clapped for them. [{hero}'s {elder} said, "You are a
winner to me. Being kind is better than being first."|The judge gave them the {thing} because they were so kind.]
"Thank you for helping me," said {friend}. {ending}""",
    ),
    Plot(
        ("a {hkind} who baked a {cake}", "baking a {cake}", "a {cake}", "a {hkind} who liked to cook"),
        """{day}, {hero} wanted to bake a {cake} for {his} {elder}. {he} [put flour, eggs, and milk in a big
bowl|took out the big bowl and the flour] and began to mix. But there was no {missing}! "[Oh no.|Oh dear.] I cannot
bake a {cake} without {missing}," said {hero}.
<p> So {hero} went to see {friend} the {fkind}. "Do you have some {missing}?" {he} asked. "[I am sorry, I have
none|No, I do not], but I can come with you," said {friend}. Together they went to {place} to see {other} the {okind}.
 {other} had a big jar of {missing}. "You may have it," said {other}, "if I can have a piece of the {cake}." "[Of
course!|Yes!]" said {hero}.
<p> The three friends baked the {cake} together. {hero} mixed, {friend} [stirred|poured the milk], and {other}
watched the oven. [Soon the whole house smelled sweet.|It came out warm and golden.] When {hero}'s {elder} came home,
there was a surprise on the table. "[What a yummy {cake}!|This is the best {cake} I ever had!]" {his} {elder} said.
They all ate a piece. {ending}""",
    ),
    Plot(
        ("a {hkind} who planted a {seed}", "a {seed} seed", "a garden", "a {hkind} who had a garden", "waiting"),
        """{day}, {hero} found a tiny seed. {hero}'s {elder} said, "This is a {seed} seed. If you take care of it, it
will grow." {hero} planted the seed in the garden. {he} gave it water every day.
<p> [On the first day|At first], nothing happened. [On the second day|The next day], nothing happened. {hero} was
[sad|not happy]. ["Why does it not grow?" {he} asked.|"It will never grow," {he} said.] {friend} the {fkind} came by
and said, "[Be patient, {hero}. Good things take time.|You must wait. The seed is sleeping.]"
<p> So {hero} waited. [It rained and the sun came out.|{he} sang to the seed every night.] [One morning|Then one
day], there was a little green leaf! [It grew and grew.|It became taller every day.] {hero} [called|ran to] {friend}.
"Look! My {seed} is growing!" {he} said.
<p> [At the end of the summer|After many weeks], the {seed} was big and beautiful. {hero} and {friend} [sat next to
it and smiled|danced around it|shared it with everyone in the village]. {hero} learned that [it is good to be
patient|good things take time]. {ending}""",
    ),
    Plot(
        (
            "a {hkind} who got lost",
            "a lost {hkind}",
            "a {hkind} who could not find the way home",
            "a {hkind} in {place}",
        ),
        """{day}, {hero} went for a walk in {place}. {he} [followed a butterfly|looked at the flowers|ran after a
{look} leaf] and did not look where {he} was going. When {he} looked up, {he} did not know where {he} was. "[Oh no, I
am lost!|Where is my home?]" said {hero}. {he} began to cry.
<p> A {fkind} named {friend} heard {him}. "[Why are you crying?|What is wrong?]" {fhe} asked. "I want to go home, but
I do not know the way," said {hero}. "[What does your home look like?|What can you see from your home?]" asked
{friend}. {hero} thought hard. "[There is a tall tree with a {thing} on it|There is a red gate and a {thing} next to
it]," {he} said.
<p> "I know that place!" said {friend}. "Follow me." They walked [over the hill|across the bridge|along the path] and
[past the pond|through the tall grass]. Soon {hero} saw the {thing}. "That is my home!" {he} shouted.
<p> {his} {elder} ran out and hugged {him}. "I was so worried," said {his} {elder}. "Thank you, {friend}, for
bringing {hero} home. [Please stay for dinner.|You are always welcome here.]" {hero} promised to be more careful
[next time|from now on]. {ending}""",
    ),
    Plot(
        ("a broken {thing}", "a {hkind} who broke a {thing}", "saying sorry", "a {hkind} who said sorry"),
        """{hero} liked to play with {friend} the {fkind}. {friend} had a {look} {thing}. {day}, {hero} [took|played
with] the {thing} and dropped it. Crack! The {thing} was broken.
<p> {hero} was [afraid|scared]. {he} hid the {thing} {hiding1} and ran home. That night, {hero} could not sleep. {he}
felt bad [in {his} tummy|inside]. "[I must tell {friend} the truth|I have to say sorry]," {he} thought.
<p> In the morning, {hero} went to {friend}. "I am sorry. I broke your {thing} and hid it," {he} said with tears in
{his} eyes. {friend} was [sad|quiet] for a moment. Then {fhe} said, "[Thank you for telling me the truth.|I am not
angry, because you told me.] [Maybe we can fix it.|Let us fix it together.]"
<p> They got some [glue|string and glue|paper and glue] and worked all morning. [Soon|At last] the {thing} was [as
good as new|even better than before]. {hero} felt light and happy again. {hero} learned that [it is always better to
tell the truth|saying sorry can fix many things]. {ending}""",
    ),
    Plot(
        (
            "a {fkind} with {hurt}",
            "a {hkind} who helped a {fkind}",
            "helping others",
            "a {hkind} and a {fkind}",
            "a kind {hkind}",
        ),
        """{day}, {hero} was [walking|playing] near {place} when {he} heard a small cry. {hiding3}, there was a
{fkind}. It was {friend}, and {fhe} had {hurt}. "[Please help me,|It hurts so much,]" said {friend}.
<p> "Do not worry. I will take care of you," said {hero}. {he} [carried|took] {friend} home and put {fhim} in a soft
bed. {hero}'s {elder} brought [warm soup|some warm milk] and a clean {cloth}. Every day, {hero} sat next to {friend}
and [told {fhim} stories|sang to {fhim}].
<p> [After a week|After a few days|Day by day], {friend} felt better. "[Look, I can run and jump again!|I am well
again!]" {fhe} said. "Thank you, {hero}. One day I will help you, too."
<p> And so it was. [In the winter, {hero} fell into a deep hole. {he} called for help. {friend} heard {him} and came
as fast as {fhe} could. {friend} pulled {hero} out.|The next week, {hero} could not find the way home. {he} called
for help. {friend} heard {him}, came running, and showed {him} the way.] "You helped me, and now I can help you,"
{friend} said. {ending}""",
    ),
    Plot(
        ("a birthday", "{hero}'s birthday", "a {hkind} who had a birthday", "a birthday surprise", "a party"),
        """Today was {hero}'s birthday. {he} [woke up early and jumped out of bed|was so excited]. "[It is my
birthday!|Everyone will come and play with me,]" {he} [shouted|thought]. But no one said happy birthday. {friend} the
{fkind} [ran past and said, "I am busy today."|was not at home.] {other} the {okind} [was not in {place}|only waved
and walked away].
<p> {hero} was very sad. "[They all forgot my birthday|Nobody remembers me]," {he} said. {he} walked home slowly. The
house was dark. {hero} opened the door.
<p> "Surprise!" everyone shouted. {friend} was there, and {other}, too. There were balloons and a big {food}. "[We
did not forget.|We wanted to surprise you!] Happy birthday, {hero}!" said {friend}. {friend} gave {him} a [box|gift]
with a ribbon. Inside was a {look} {thing}!
<p> "[I love it!|Thank you, everyone!] This is the best birthday ever," said {hero}. They [sang|danced], ate the
{food}, and played with the {thing} until it was late. {ending}""",
    ),
    Plot(
        ("a {hkind} who told a lie", "telling lies", "a {hkind} who played tricks", "a trick"),
        """{hero} liked to play tricks. {day}, {he} ran to {place} and shouted, "Help! Help! There is a big
{monster}!" {friend} the {fkind} and {other} the {okind} came running. But there was no {monster}. {hero} laughed and
laughed. "[It was only a trick!|I tricked you!]" {he} said. {friend} was not happy. "That is not funny, {hero},"
{fhe} said.
<p> The next day, {hero} did it again, and {his} friends came running again. They were [angry|very cross].
<p> But on the third day, {hero} saw a real {monster}! [It was big and had sharp teeth.|It came closer and closer.]
"Help! Help! A {monster}!" {hero} shouted. "[It is just a trick|We do not believe you]," said {friend} and {other}.
Nobody came. {hero} had to [climb a tall tree|hide in a hole] and wait until the {monster} went away.
<p> When {hero} came home, {he} said, "I am sorry. I will not lie to you again." [{friend} hugged {him}. "Then we
will always come when you call," {fhe} said.|{friend} and {other} forgave {him}.] {hero} learned that nobody believes
a liar. {ending}""",
    ),
    Plot(
        (
            "a {hkind} who learned to {skill}",
            "a {hkind} who could not {skill}",
            "a {hkind} who wanted to {skill}",
            "never giving up",
            "learning to {skill}",
        ),
        """{hero} wanted to {skill}. [All {his} friends could {skill}|{his} {elder} could {skill} very well], but
{hero} could not. {day}, {he} tried, but it [did not work|went wrong]. {he} tried again and fell down. "[I will never
learn to {skill}|It is too hard]," said {hero} [sadly|with tears in {his} eyes].
<p> {friend} the {fkind} saw {him}. "[When I was small, I could not {skill} either|I had to try many times, too],"
said {friend}. "[Let me show you.|I can teach you.] [First, go slowly.|Do not give up.]" {friend} showed {hero} how
to do it.
<p> {hero} tried every day. On Monday it was bad. On Tuesday it was a little better. [On Friday, {he} almost did
it.|{he} did not give up.] And on Sunday, {hero} could {skill}! "[Look at me! I can {skill}!|I did it, {friend}!]"
{he} shouted.
<p> {friend} clapped {fhis} hands. "[I knew you could do it|I am so proud of you]," {fhe} said. [They went to {place}
to show everyone.|{hero}'s {elder} gave {him} a {food}.] {hero} learned that [if you keep trying, you can do it|you
must never give up]. {ending}""",
    ),
    Plot(
        (
            "a treasure map",
            "a treasure",
            "a {hkind} who found a treasure",
            "an adventure",
            "a {hkind} and a {fkind} on an adventure",
        ),
        """{day}, {hero} found an old map {hiding1}. There was a big red X on it. "[A treasure map!|This must be a
treasure map,]" said {hero}. {he} ran to {friend} the {fkind}. "Do you want to find the treasure with me?" "Yes!"
said {friend}.
<p> First, the map took them to {place}. Then they had to go [over a bridge|through a dark cave|across a river].
[{friend} was a little scared, but {hero} held {fhis} hand.|It was a long way, but they sang a song.] At last they
came to [a tall tree|a big rock|an old wall]. "This is the X!" said {hero}.
<p> They began to dig. They dug and dug. Clunk! There was a box in the ground. They opened it [slowly|together].
Inside there was [no gold|not any gold], but a {look} {thing} and a letter. The letter said, "The best treasure is a
good friend."
<p> {hero} looked at {friend} and smiled. "[Then I already have a treasure|That is true]," {he} said. They took the
{thing} home and [showed it to {his} {elder}|took turns to play with it]. {ending}""",
    ),
    Plot(
        (
            "a {hkind} who built a {build}",
            "building a {build}",
            "a {build}",
            "a {hkind} and a {build}",
            "working together",
        ),
        """{day}, {hero} wanted to build a {build}. {he} [got some wood and a hammer|found many sticks and
stones|worked all morning]. But [the wind blew and it fell down|it was too heavy for {him}|it fell apart]. "[I cannot
do this alone|This is too hard for me]," said {hero}.
<p> {friend} the {fkind} came by. "What are you doing?" {fhe} asked. "I want to build a {build}, but it always falls
down," said {hero}. "[I am strong. I can carry the big pieces|I can help you]," said {friend}. Then {other} the
{okind} came, too. "[I am small, but I can tie the strings|I have some good ideas]," said {other}.
<p> The three worked all day. {hero} [held the wood|made a plan], {friend} carried, and {other} [tied|painted it
{colour}]. [In the evening|When the sun went down], the {build} was ready. It was [big and strong|the best {build} in
the world].
<p> "[We did it together!|Look what we made!]" said {hero}. [They put a {thing} on top of it.|They had a little party
with a {food}.] {hero} learned that [many hands make light work|it is easier to work together]. {ending}""",
    ),
    Plot(
        ("a {fkind} who was stuck", "a rescue", "a {hkind} who saved a {fkind}", "a {hkind} and a stuck {fkind}"),
        """{day}, {hero} heard someone calling, "Help! Help!" {He} ran to {place}. There was {friend} the {fkind},
stuck [in a hole|in the mud|between two rocks|high up in a tree]. "I cannot get out!" said {friend}. "[I wanted to
get my {thing}, and now I am stuck.|Please help me!]"
<p> {hero} pulled and pulled, but {friend} did not move. "[I am not strong enough|I need some help]," said {hero}.
{he} ran to {other} the {okind}. "{friend} is stuck! Please come quickly!" {other} came and brought a long rope.
<p> {hero} and {other} [pulled on the rope|held the rope tight]. One, two, three, pull! Pop! {friend} [came out|was
free]. [They all fell on the grass and laughed.|"Hooray!" they shouted.]
<p> "[Thank you for saving me|You are my heroes]," said {friend}. {fhe} gave them [a {look} {thing}|a big hug|half of
{fhis} {food}]. {hero} was glad that {he} had asked for help. {ending}""",
    ),
    Plot(
        ("a strange noise", "a noise in the night", "a {hkind} who heard a noise", "a {hkind} who could not sleep"),
        """One night, {hero} was in bed when {he} heard a strange noise. It went {sound}. "What was that?" thought
{hero}. {he} [hid under the blanket|held {his} {thing} tight]. There it was again: {sound}. [Maybe it was a
{monster}!|{hero} was scared.]
<p> {hero} [was scared, but {he} wanted to know|took a deep breath]. {he} [got out of bed|took a lamp] and walked
slowly to the [door|window]. {sound}! {hero} opened it and looked out.
<p> It was not a {monster}. It was only a little {fkind}! "[Hello. I am {friend}|My name is {friend}]," said the
{fkind}. "[I am cold. May I come in?|I lost my way in the dark.|I could not sleep, and I saw your light.]" {hero}
laughed. "I thought you were a {monster}!" {he} said. "[I am too small to be a {monster}|No, I am just me]," said
{friend}, and {fhe} laughed, too.
<p> {hero} gave {friend} [a warm blanket and a {food}|some warm milk]. [They talked until they fell asleep.|Soon they
were both fast asleep.] {ending}""",
    ),
    Plot(
        ("a greedy {hkind}", "a {hkind} who ate too much", "a {hkind} who liked sweets", "too many {foods}"),
        """{hero} loved {foods}. {day}, {his} {elder} made a big plate of {foods} for [the party|the whole family].
"Please do not eat them now," said {his} {elder}. "[They are for everyone.|We will eat them after dinner.]"
<p> But the {foods} smelled so good! {hero} took one. Yum! Then {he} took another one, and another one. Soon the
plate was empty. Then {hero}'s tummy began to hurt. "Ouch, ouch!" {he} cried and lay down on the floor.
<p> {friend} the {fkind} came to [the party|dinner]. "Where are the {foods}?" asked {friend}. {hero} looked at the
floor. "I ate them all, and now my tummy hurts. I am sorry," {he} said. {friend} [was sad|sat down next to {him}].
"[I wanted to eat one, too|You should have shared]," {fhe} said.
<p> The next day, {hero} felt better. {he} made a new plate of {foods} with {his} {elder} and gave [the biggest
one|the first one] to {friend}. "This time, we share," said {hero}. They all tasted good, and nobody's tummy hurt.
{ending}""",
    ),
    Plot(
        (
            "a trade",
            "a {hkind} and a {thing}",
            "a {hkind} who gave away a {thing}",
            "a {hkind}, a {fkind}, and a {okind}",
        ),
        """{hero} had a {look} {thing}, but {he} wanted a {thing2}. {day}, {he} went to {place} and met {friend} the
{fkind}. {friend} had a {thing2}! "[Will you trade your {thing2} for my {thing}?|I will give you my {thing} for your
{thing2}]," said {hero}. "[I do not need a {thing}|No, thank you]," said {friend}. "But I am hungry. I would like a
{food}."
<p> So {hero} went to {other} the {okind}, who had a {food}. "May I have your {food}?" asked {hero}. "[If you give me
the {thing}, you can have it|I always wanted a {thing} like that]," said {other}. {hero} gave {other} the {thing} and
got the {food}.
<p> Then {hero} ran back and gave the {food} to {friend}. "[Yum!|How nice!] Here is the {thing2}," said {friend}. Now
everyone was happy: {other} had the {thing}, {friend} had the {food}, and {hero} had the {thing2}.
<p> "[That was a good trade|We all got what we wanted]," said {hero}. {he} [ran home to show the {thing2} to {his}
{elder}|played with the {thing2} all day]. {ending}""",
    ),
    Plot(
        (
            "the moon",
            "a {hkind} and the moon",
            "a {hkind} who wanted to touch the moon",
            "the night",
            "a {hkind} and the stars",
            "a bedtime story",
        ),
        """Every night, {hero} looked at the moon. It was round and bright. "I want to [touch|catch] the moon," said
{hero}. {he} climbed on a chair, but the moon was too high. {he} climbed [up a tree|to the top of the hill], but the
moon was still too far away.
<p> {friend} the {fkind} saw {him}. "What are you doing up there?" asked {friend}. "I want the moon, but I cannot
reach it," said {hero}. {friend} [smiled|thought for a while]. "Come with me," {fhe} said. They walked to [the
pond|the lake|the river]. The water was very still.
<p> "Look!" said {friend}. There was the moon, right in the water! {hero} put {his} hand in the water, and the moon
[danced|moved and sparkled]. "I can touch it!" {he} said and laughed. [The stars were in the water, too.|Little waves
of silver ran over the water.]
<p> "The moon belongs to everyone," said {friend}, "[and it comes back every night|so we can all look at it
together]." {hero} [yawned and went home to bed|looked up once more and felt happy]. "Good night, moon," {he} said.
{ending}""",
    ),
    Plot(
        (
            "a star",
            "a star that fell from the sky",
            "a little star",
            "a {hkind} and a star",
            "a wish",
            "a {hkind} who made a wish",
        ),
        """One night, {hero} saw a star fall from the sky. It fell down near {place}. {hero} ran [outside|there as
fast as {he} could]. {hiding3}, {he} found a little star. It was crying. "[I fell down and I cannot get home|I want
to go back to the sky]," said the star.
<p> "Do not cry. I will help you," said {hero}. {he} put the star in {his} {thing2} and carried it up the hill.
{hero} threw the star up as high as {he} could, but it came down again. "[The sky is too high|It does not work],"
said {hero}.
<p> Then {friend} the {fkind} came. "[The wind is strong on the mountain|I know someone who can help]," said
{friend}. "[We can ask the wind|We can tie it to a kite]." So they went to the very top. Whoosh! The wind took the
little star up, up, up into the sky.
<p> "Thank you!" called the star. "Now you may make a wish." {hero} thought for a moment. "[I wish for a {look}
{thing}|I wish that {friend} and I will always be friends]," {he} said. [The star blinked, and the wish came
true.|And every night, the star shone just for {hero} and {friend}.] {ending}""",
    ),
    Plot(
        (
            "a {hkind} with no friends",
            "a lonely {hkind}",
            "a {hkind} who made a new friend",
            "friendship",
            "a {hkind} and a {fkind} who became friends",
            "a {fkind} who was different",
        ),
        """{hero} [had no one to play with|wanted a friend]. {day}, {he} went to {place} and asked {other} the
{okind}, "Will you play with me?" "[I am too busy|Not today]," said {other}. {hero} [sat down alone|walked away with
{his} head down].
<p> Then {he} saw a {fkind} who sat alone, too. {fhe} had a {look} {thing}. "[Hello, I am {hero}. What is your
name?|Hi! Why are you alone?]" asked {hero}. "I am {friend}. [I am new here|Nobody wants to play with me, because I
am different]," said the {fkind}. "[I like that you are different!|I am alone, too!] Let's play together," said
{hero}.
<p> They played with the {thing} all day. They [ran|laughed], [jumped|sang], and told jokes. {other} came and watched
them. "[That looks fun|I am sorry that I was not nice]," said {other}. "May I play, too?" {hero} looked at {friend},
and {friend} nodded. "[Of course! The more, the better|Yes, you can]," {he} said.
<p> So {hero} had two new friends. "[Now I am not lonely anymore|This is a happy day]," {he} said. {ending}""",
    ),
    Plot(
        ("a letter", "a {hkind} who brought a letter", "a {hkind} with a job", "a {hkind} and a long way"),
        """{day}, {hero}'s {elder} gave {him} a letter. "Please take this letter to {other} the {okind}," said {his}
{elder}. "[It is very important.|Do not lose it.]" {hero} was proud. {he} put the letter in {his} bag and walked to
{place}.
<p> On the way, {he} met {friend} the {fkind}. "[Come and play with me!|Do you want to see my {look} {thing}?]" said
{friend}. {hero} wanted to play, but {he} remembered the letter. "[I cannot play now. I have a job to do|First I must
bring this letter]," said {hero}. "[Then I will come with you|I will walk with you]," said {friend}.
<p> Suddenly, the wind blew the letter away! It flew up and landed {hiding1}. {hero} and {friend} ran after it.
{friend} [jumped and caught it|found it] [just in time|at last]. "[That was close!|Thank you, {friend}!]" said {hero}.
<p> When they came to {other}'s house, {other} opened the letter and smiled. "It says that you are all invited to [a
picnic|dinner|a party] tonight!" {ohe} said. [That night, they ate {foods} and told stories.|They all had so much
fun.] {ending}""",
    ),
    Plot(
        ("a {hkind} in the snow", "winter", "a {hkind} who was cold", "a cold day", "snow"),
        """It was winter, and everything was white. {hero} put on {his} [warm coat|{colour} scarf|big boots] and went
out to play in the snow. {he} made a [snowman|big snowball] near {place}.
<p> Then {hero} saw a {fkind} who was shaking. "I am so cold," said the {fkind}. "[I have no coat and no home.|The
snow took my home away.]" {fhis} name was {friend}. {hero} felt sorry for {fhim}. {he} took off {his} {cloth} and put
it around {friend}. "[Now you will be warm|You can have this]," {he} said. "But then you will be cold," said {friend}.
<p> "[We can go to my house|I have an idea]," said {hero}. They ran home, and {hero}'s {elder} made hot soup. They
sat [by the fire|near the warm stove] and ate. {friend}'s cheeks became [red|pink] and {fhe} smiled again. "[You can
stay with us until spring|Our home is your home]," said {hero}'s {elder}.
<p> All winter, {hero} and {friend} [played in the snow and drank hot milk|told stories by the fire]. When spring
came, {friend} gave {hero} [the first flower|a {look} {thing}]. "You kept me warm," {fhe} said. {ending}""",
    ),
    Plot(
        ("a {hkind} and a magic {thing}", "a magic {thing}", "magic", "a {hkind} who found something magic"),
        """{day}, {hero} found a {thing} {hiding1}. When {he} touched it, it began to [shine|glow|sing]. "I am a
magic {thing}," it said. "You can make three wishes." {hero} [could not believe it|was very surprised]!
<p> "I want a hundred {foods}!" said {hero}. Puff! There were {foods} everywhere. {hero} ate and ate. "Now I want to
be as big as a house!" {he} said. Puff! {hero} was so big that {he} could not [go into {his} home|play with anyone].
{friend} the {fkind} saw {him} and ran away. "[Come back! It is only me!|Do not be scared!]" called {hero}, but
{friend} was gone.
<p> {hero} sat down and cried big tears. {he} had one wish left. "I wish to be just as I was before," {he} said.
Puff! {hero} was {his} own size again.
<p> {he} ran to {friend} and told {fhim} everything. They [laughed|smiled], and then they ate the {foods} together.
"[I do not need any magic when I have a friend|I like you just as you are]," said {friend_or_hero}. {hero} put the
{thing} back [where {he} had found it|{hiding1}]. {ending}""",
    ),
)
