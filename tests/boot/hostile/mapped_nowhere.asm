; A good page table maps linear 40000000 to physical TARGET, where no RAM is. Reads, writes, read-modify-writes, wide
; and page-crossing accesses go on; execution there meets all ones (FF FF is #UD) or whatever the machine reads.
%include "rom.inc"
PAGE    equ 0x40000000
main:   mov edi, FREE                           ; page directory: identity by 4 MiB pages, all 4 GiB
        mov eax, 0x83
.fill:  mov [edi], eax
        add edi, 4
        add eax, 0x400000
        jnc .fill
        mov dword [FREE + (PAGE >> 22) * 4], FREE + 0x1003
        mov dword [FREE + 0x1000], TARGET + 3
        mov dword [FREE + 0x1004], FREE + 0x2003        ; the page after it is RAM
        mov eax, cr4
        or eax, 1 << 4 | 3 << 9                 ; PSE, OSFXSR, OSXMMEXCPT
        mov cr4, eax
        mov eax, FREE
        mov cr3, eax
        mov eax, cr0
        or eax, 1 << 31
        mov cr0, eax

        mov ebx, [PAGE]
        mov dword [PAGE], 0x12345678
        cmp [PAGE], ebx
        jne .ram
        add dword [PAGE + 8], 1
        lock xadd [PAGE + 16], eax
        lock cmpxchg [PAGE + 16], ecx
        lock cmpxchg8b [PAGE + 24]
        bts dword [PAGE + 32], 5
        mov eax, [PAGE + 0xffe]                 ; into the RAM page
        mov [PAGE + 0xffe], eax
        movups xmm0, [PAGE + 0x100]
        movups [PAGE + 0xff8], xmm0
        fxsave [PAGE + 0x200]
        fld qword [PAGE + 0x200]
        fstp tword [PAGE + 0x208]
        push dword [PAGE]
        pop dword [PAGE + 4]
        mov esi, PAGE
        mov edi, PAGE + 0x800
        mov ecx, 0x200
        rep movsd                               ; ends in the RAM page's neighbour
        mov al, 0xaa
        mov edi, PAGE
        mov ecx, 0x1004
        rep stosb
        cmp dword [PAGE + 0x1000], 0xaaaaaaaa
        jne .ram
        mov eax, [PAGE]
        call print_number
        expect .executed
        mov eax, PAGE + 0x400
        call eax
.executed:
        mov esp, STACK - 4
        say "went on"
        jmp .stack
.ram:   say "a write reached memory that is not there"
        ret
.stack: mov dword [gdt + 0x30], 0x0000ffff      ; a stack there: pushes are lost, pops read what nowhere reads
        mov dword [gdt + 0x34], 0x00cf9300
        mov ax, 0x30
        mov ss, ax
        mov esp, PAGE + 0xf00
        push eax
        pushad
        popad
        pop ebx
        mov ax, 0x10
        mov ss, ax
        mov esp, STACK - 4
        say "stack survived"
        ret
%include "end.inc"
